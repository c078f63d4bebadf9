"""Parser for the Dockerfiles."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)  # (word, the rest)

    def all(self, word: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == word]


def stages(file: Path) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage with their defaults, and the stages in order."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif not found:
            assert word == "ARG", line
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            found[-1].instructions.append((word, rest))
    return arguments, found


def ancestry(all_stages: list[Stage], stage: Stage) -> list[Stage]:
    """Return a stage and its base stages."""
    below = [s for s in all_stages if s.name == stage.base]
    return [stage, *(a for s in below for a in ancestry(all_stages, s))]


def apt_packages(stage: Stage) -> set[str]:
    names: set[str] = set()
    for command in stage.all("RUN"):
        for part in command.split("&&"):
            if " install " in part and "apt-get" in part:
                words = part.split(" install ")[1].split()
                names |= {word for word in words if not word.startswith("-")}
    return names


def copied_from_context(stage: Stage) -> list[str]:
    sources = [rest.split() for rest in stage.all("COPY") if "--from=" not in rest]
    files = [source for words in sources for source in words[:-1]]
    for command in stage.all("RUN"):
        files += re.findall(r"--mount=type=bind,source=([^,]+)", command)
    return files


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore excludes a file: the last matching line applies."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").strip("/")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(/.*)?", path):
            ignored = not line.startswith("!")
    return ignored


def requirement_lines(file: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]
