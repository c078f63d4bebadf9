"""Page objects for the apps' pages, and their screenshots."""

import json
from pathlib import Path
from typing import Any

SCREENSHOTS = Path(__file__).parents[2] / ".test-output" / "pages"
LONG_MS = 240_000  # for trainings


class AppPage:
    """A page of an app, addressed by accessible names."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        page.goto(address)
        page.get_by_role("heading", level=1).wait_for()

    def card(self, title: str) -> Any:
        """Return a card by its title."""
        return self.page.get_by_role("region", name=title, exact=True)

    def press(self, card: str, button: str) -> None:
        """Press a button of a card."""
        self.card(card).get_by_role("button", name=button, exact=True).click()

    def locked(self, card: str) -> bool:
        """Return whether a card is locked by an earlier step."""
        return self.card(card).get_attribute("aria-disabled") == "true"

    def step(self) -> str:
        """Return the title of the current step."""
        return self.page.locator("[aria-current=step] h2").inner_text()

    def write_hyperparameters(self, values: dict[str, Any]) -> None:
        """Replace the text in the editor, with the keyboard."""
        self.card("Hyperparameters").get_by_role("textbox").click()
        self.page.keyboard.press("Control+a")
        lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
        self.page.keyboard.insert_text("\n".join(lines))

    def wait_for_steps(self) -> None:
        """Wait until a step of the training is finished."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('[role=progressbar]')]"
            ".some((bar) => bar.ariaLabel === 'Steps' && Number(bar.ariaValueNow) > 0)",
            timeout=LONG_MS,
        )

    def note_bars(self) -> None:
        """Start to record every value of the progress bars."""
        self.page.evaluate(
            """() => {
              window.seen = {};
              new MutationObserver(() => {
                for (const bar of document.querySelectorAll('[role=progressbar]'))
                  (window.seen[bar.ariaLabel] ??= new Set()).add(Number(bar.ariaValueNow));
              }).observe(document.body, {subtree: true, childList: true, attributes: true});
            }"""
        )

    def seen_percents(self, bar: str) -> set[int]:
        """Return the recorded values of a bar."""
        return set(self.page.evaluate("(bar) => [...(window.seen[bar] ?? [])]", bar))

    def picture(self, name: str) -> None:
        """Save a screenshot of the whole page, and assert that no element overflows."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        end, bottom = self.page.evaluate(
            "[document.documentElement.scrollHeight, document.body.getBoundingClientRect().bottom"
            " + scrollY]"
        )
        assert end <= max(bottom + 1, self.page.viewport_size["height"])


def unnamed_controls(page: Any) -> list[str]:
    """Return visible buttons and inputs without an accessible name."""
    return page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, [role=textbox]')]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.ariaLabel || e.getAttribute('aria-labelledby') || e.labels?.length &&
            e.labels[0].textContent.trim() || e.textContent.trim() || e.title))
        .map((e) => e.outerHTML.slice(0, 160))"""
    )
