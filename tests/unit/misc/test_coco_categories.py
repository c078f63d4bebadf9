"""COCO categories match those of torchvision."""

from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from rtdetrv2_pytorch.src.misc.coco_categories import COCO_CATEGORIES, COCO_CATEGORY_IDS


def test_names_and_ids_match_torchvision():
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert {i: n for i, n in enumerate(names) if n not in ("N/A", "__background__")} == (
        COCO_CATEGORIES
    )


def test_labels_follow_ascending_ids():
    gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert tuple(i for i in range(1, 91) if i not in gaps) == COCO_CATEGORY_IDS
    assert len(COCO_CATEGORY_IDS) == 80
    assert (COCO_CATEGORY_IDS[0], COCO_CATEGORY_IDS[11], COCO_CATEGORY_IDS[79]) == (1, 13, 90)
