"""Properties of category tables and configurations."""

import copy

import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from rtdetrv2_pytorch.src.core.yaml_files import get, merge, parse_overrides
from rtdetrv2_pytorch.src.data.categories import CategoryTable, normalize_id
from rtdetrv2_pytorch.src.misc.errors import DatasetError
from rtdetrv2_pytorch.src.misc.limits import read_yaml
from tests.properties.settings import examples

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
ids = st.integers(-(2**40), 2**40)
tables = st.dictionaries(ids, names, min_size=1, max_size=8).filter(
    lambda d: len(set(d.values())) == len(d)
)


def table_of(pairs):
    return CategoryTable.from_coco(
        [{"id": id_, "name": name} for id_, name in pairs], set(), source="test"
    )


@examples(150)
@given(tables, st.randoms(use_true_random=False))
def test_labels_follow_ids_in_any_file_order(categories, order):
    pairs = list(categories.items())
    order.shuffle(pairs)
    table = table_of(pairs)
    assert table.ids == tuple(sorted(categories))
    assert table.names == tuple(categories[id_] for id_ in table.ids)
    # Names and labels map one to one.
    assert sorted(table.label_of.values()) == list(range(len(categories)))
    assert [table.ids[table.label_of[name]] for name in categories.values()] == list(categories)
    table.check_shared(table, source="itself")
    written = table_of([(str(id_), name) for id_, name in pairs])
    assert written == table


@examples(100)
@given(tables, st.integers(1, 1000))
def test_other_ids_are_known_by_name(categories, step):
    table = table_of(categories.items())
    # The same names in reverse order.
    other = table_of((step - id_, name) for id_, name in categories.items())
    table.check_shared(other, source="other")
    assert other.label_of.keys() == table.label_of.keys()


@examples(60)
@given(tables, st.data())
def test_duplicates_are_rejected(categories, data):
    pairs = list(categories.items())
    id_, name = data.draw(st.sampled_from(pairs))
    new = max(categories) + 1
    for entry in ((id_, f"{name}~new"), (new, name)):
        assume(entry[1] not in categories.values() or entry[0] == new)
        try:
            table_of([*pairs, entry])
        except DatasetError as error:
            assert "occurs more than once" in str(error)
        else:
            raise AssertionError(f"{entry} was accepted")


@examples(100)
@given(st.one_of(ids, st.text(max_size=6), st.floats(), st.booleans(), st.none()))
def test_id_normalization_is_idempotent(id_):
    once = normalize_id(id_)
    assert isinstance(once, int | str)
    assert normalize_id(once) == once


# Configurations

keys = st.text("abcde_", min_size=1, max_size=3)
scalars = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=8),
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=8
)
mappings = st.dictionaries(keys, values, max_size=4)


def leaves(value, path=()):
    """Return paths and values of all non-mapping leaves."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    return [(path, value)]


@examples(150)
@given(mappings, mappings, mappings)
def test_merge_is_associative_for_compatible_mappings(a, b, c):
    def agree(x, y):
        """Return whether mappings are only merged with mappings."""
        return all(
            isinstance(x[k], dict) == isinstance(y[k], dict)
            and (not isinstance(x[k], dict) or agree(x[k], y[k]))
            for k in x.keys() & y.keys()
        )

    assume(agree(a, b) and agree(b, c) and agree(a, c))
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@examples(150)
@given(mappings, mappings)
def test_merge_contains_second_and_modifies_neither(a, b):
    before = copy.deepcopy((a, b))
    merged = merge(a, b)
    assert (a, b) == before
    for path, value in leaves(b):
        assert get(merged, path) == value
    assert merge(a, {}) == merge({}, a) == a
    assert merge(merged, b) == merged  # idempotent


@examples(150)
@given(st.lists(keys, min_size=1, max_size=3), values)
def test_override_value_is_parsed_as_yaml(path, value):
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    text = text.removesuffix("\n...\n").strip()
    # Only the two spellings of `epochs` are renamed.
    parsed = parse_overrides([f"{'.'.join(path)}={text}"])
    assert get(parsed, tuple(path)) == value


@examples(150)
@given(values)
def test_read_yaml_matches_pyyaml(value):
    text = yaml.safe_dump(value, allow_unicode=True)
    assert read_yaml(text) == yaml.safe_load(text) == value
