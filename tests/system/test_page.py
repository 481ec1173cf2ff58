"""The page in a real browser: what it shows under load, without MySQL and with a dead event, and what its buttons do.

Screenshots are stored in build/test-results/page for people to look at.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Iterator

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from endpoint import TOKEN, Endpoint
from mysqld import Mysqld
from server import wait_for
from workspace import OUTBOX, ROOT, WAIT_S, Process, Stores, Workspace, decimal

WIDTHS = {"wide": 1280, "phone": 390}
SCREENSHOTS = ROOT / "build/test-results/page"


class Page:
    """One tab. Records the browser's complaints and all its requests."""

    def __init__(self, driver: webdriver.Chrome, endpoint: Endpoint):
        self.driver = driver
        self.endpoint = endpoint
        driver.get(endpoint.url + "/")
        driver.get_log("browser")  # complaints of the previous page

    def text(self, selector: str) -> str:
        """What the first such element shows, "" without one. In one step: the page may redraw a list at any moment."""
        return self.driver.execute_script(
            "const found = document.querySelector(arguments[0]);"
            "return found?.getClientRects().length ? found.innerText.trim().replace(/\\s*[\\n\\t]\\s*/g, ' ') : '';", selector)

    def texts(self, selector: str) -> list[str]:
        return [self.text(f"{selector}:nth-child({i + 1})") for i in range(len(self.driver.find_elements(By.CSS_SELECTOR, selector)))]

    def number(self, selector: str) -> float:
        text = self.text(selector).replace(",", "")
        return float(text) if text not in ("", "–") else 0

    def shows(self, selector: str, part: str) -> bool:
        return part in self.text(selector)

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            try:
                self.driver.find_element(By.CSS_SELECTOR, selector).click()
                return True
            except StaleElementReferenceException:  # redrawn in between
                return False
        wait_for(clicked, WAIT_S, f"{selector} to be there for a click")

    def emulate(self, width: int, dark: bool) -> None:
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})

    def screenshots(self, name: str) -> None:
        """Both widths, light and dark; nothing overflows sideways."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for width_name, width in WIDTHS.items():
            for dark in (False, True):
                self.emulate(width, dark)
                self.settled()
                size = self.driver.execute_script(
                    "return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
                assert size[0] <= width, f"{name} is {size[0]} wide at {width}"
                self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                    "width": width, "height": size[1], "deviceScaleFactor": 1, "mobile": width < 600})
                self.settled()
                self.driver.save_screenshot(str(SCREENSHOTS / f"{name}-{width_name}{'-dark' if dark else ''}.png"))
        self.emulate(WIDTHS["wide"], False)

    def settled(self) -> None:
        """Two frames after the window has changed, everything has been drawn."""
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));")

    def check_clean(self) -> None:
        """No complaints in the console, and nothing was loaded from elsewhere."""
        assert self.driver.get_log("browser") == []
        loaded = self.driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert loaded and all(name.startswith((self.endpoint.url, "data:")) for name in loaded)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    yield driver
    driver.quit()


@contextmanager
def shown(ws: Workspace, driver: webdriver.Chrome, **settings) -> Iterator[tuple[Process, Page]]:
    token = ws.folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")
    ws.mapping(**{"name": "bank", "http": "127.0.0.1:0", "admin_token_file": str(token), **settings})
    with ws.start_projector() as process:
        page = Page(driver, Endpoint(process))
        page.emulate(WIDTHS["wide"], False)
        yield process, page


@contextmanager
def load(ws: Workspace, rate: int = 300) -> Iterator[None]:
    """A bank that writes while the test watches."""
    writer = Process([OUTBOX, "demo", "--uri", ws.stores.mongo_uri, "--database", ws.name, "--rate", str(rate), "--seconds", "120",
                      "--quiet"], ws.folder / "writer.log", {})
    ws.started.append(writer)
    try:
        yield
    finally:
        writer.stop()  # if killed, it would leave an open transaction, and locks with it


def impossible(ws: Workspace, account: str, **more) -> dict:
    return ws.event(account, "MoneyDeposited", **{"amount": "much", **more})


@pytest.mark.thorough
def test_it_shows_the_flow_under_load(bank, driver):
    with shown(bank, driver) as (_, page), load(bank):
        bank.wait(lambda: page.number("#committed") > 1000, what="a thousand events")
        bank.wait(lambda: page.shows("#summary", "All is well"), what="the summary")
        bank.wait(lambda: page.number("#rate") > 0, what="the rate of the last second")
        assert page.text("#role") == "working" and page.shows("#owner", "epoch ")
        assert page.shows("#mysql_server", "M") and page.shows("#mongodb_server", "MongoDB")
        assert "account" in page.text("#projections tbody")
        assert len(driver.find_elements(By.CSS_SELECTOR, ".chart canvas")) == 2
        page.screenshots("load")
        page.check_clean()


@pytest.mark.thorough
def test_a_later_visitor_sees_the_last_minutes(bank, driver):
    with shown(bank, driver) as (_, page), load(bank):
        bank.wait(lambda: page.number("#committed") > 600, what="events")
        before = driver.execute_script("return samples.length")
        driver.refresh()
        bank.wait(lambda: driver.execute_script("return samples.length") >= before, what="the same history")


@pytest.mark.thorough
def test_it_says_that_mysql_is_down_and_back(stores, driver, server_folder, tmp_path):
    with Mysqld(server_folder / "mysqld") as mysql, Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with shown(ws, driver) as (_, page), load(ws, 100):
            ws.wait(lambda: page.number("#committed") > 100, what="events")
            mysql.stop()
            try:
                ws.wait(lambda: page.shows("#summary", "MySQL cannot be reached"), what="the outage")
                ws.wait(lambda: page.shows("#workers", "wait for a store"), what="waiting workers")
                ws.wait(lambda: page.number("#waiting") > 100, what="waiting events")
                page.screenshots("mysql-down")
            finally:
                mysql.start()
            ws.wait(lambda: page.shows("#summary", "All is well"), what="the recovery")
            page.screenshots("recovered")
            page.check_clean()


@pytest.mark.thorough
def test_it_says_that_mysql_hangs_or_refuses_and_that_nothing_is_lost(stores, driver, server_folder, tmp_path):
    with Mysqld(server_folder / "mysqld") as mysql, Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with shown(ws, driver) as (_, page), load(ws, 100):
            ws.wait(lambda: page.number("#committed") > 100, what="events")
            mysql.pause()
            try:
                ws.wait(lambda: page.shows("#summary", "MySQL cannot be reached since") and page.shows("#summary", "nothing is lost"))
                ws.wait(lambda: page.text("#mysql_server") == "does not answer", what="the server's state")
                assert "bad" in page.driver.find_element(By.ID, "mysql").get_attribute("class")
                ws.wait(lambda: page.shows("#summary", "none has been applied for"), what="work that stands still")
                page.screenshots("mysql-hangs")
            finally:
                mysql.resume()
            ws.wait(lambda: page.shows("#summary", "All is well"), what="the recovery")
            with mysql.connect() as root, root.cursor() as cursor:
                cursor.execute("SET GLOBAL read_only = 1" if mysql.is_mariadb else "SET GLOBAL super_read_only = 1")
                ws.wait(lambda: page.shows("#summary", "MySQL refuses to work since"), what="the refusal")
                ws.wait(lambda: page.shows("#mysql_server", ", refuses to work"), what="the server's state")
                page.screenshots("mysql-read-only")
                cursor.execute("SET GLOBAL read_only = 0")
            ws.wait(lambda: page.shows("#summary", "All is well"), what="the recovery")
            page.check_clean()


@pytest.mark.thorough
def test_a_dead_event_is_retried_from_the_page(bank, driver):
    bank.put(bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")),
             dead := impossible(bank, "a1"),
             bank.event("a1", "AccountRenamed", name="Ada Lovelace"),
             other := impossible(bank, "<b>a2</b><script>window.hurt = 1</script>"))
    item = f'li[data-event="{dead["_id"]}"]'
    with shown(bank, driver, permanent="dead", lease_ms=2000) as (_, page):
        bank.wait(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#troubles li")) == 2, what="two dead events")
        assert page.shows(item, "expected decimal(18,2), found string") and page.shows(item, "MoneyDeposited of account a1")
        bank.wait(lambda: page.shows("#summary", "2 events are dead"), what="both in the headline")
        page.screenshots("dead")
        bank.outbox.update_one({"_id": dead["_id"]}, {"$set": {"payload.amount": decimal("2.00")}})
        page.click(f"{item} button[data-verb=retry]")
        page.driver.find_element(By.ID, "token").send_keys(TOKEN)
        page.screenshots("token")
        page.click("#token_dialog button.main")
        bank.wait(lambda: page.shows("#decide_payload", '"2.00"'), what="the payload")
        assert page.text("#decide_title") == "Retry this event?" and page.shows("#decide_event", str(dead["_id"]))
        page.screenshots("decide")
        page.click("#decide_button")
        bank.wait_gone(dead)
        bank.wait(lambda: not driver.find_elements(By.CSS_SELECTOR, item), what="the event to leave the list")
        page.click(f'li[data-event="{other["_id"]}"] button[data-verb=skip]')  # the token is known now
        bank.wait(lambda: page.shows("#decide_payload", '"much"'), what="the payload")
        page.click('#decide_dialog button[value=cancel]')
        bank.wait(lambda: not driver.find_element(By.ID, "decide_dialog").is_displayed(), what="the end of the dialog")
        assert bank.found(other)["status"] == "dead"
        page.click(f'li[data-event="{other["_id"]}"] button[data-verb=skip]')
        bank.wait(lambda: page.shows("#decide_effect", "the archive keeps the event"), what="the effect")
        page.click("#decide_button")
        bank.wait(lambda: page.shows("#summary", "All is well"), what="the end of trouble")
        assert driver.execute_script("return window.hurt") is None
        page.check_clean()
        bank.wait_drained()
    assert str(bank.rows("account")[0]["balance"]) == "3.00" and bank.rows("account")[0]["name"] == "Ada Lovelace"


@pytest.mark.thorough
def test_many_dead_events_are_shown_by_kind_and_retried_together(bank, driver):
    bank.put([impossible(bank, f"a{i}") for i in range(60)], bank.event("b1", "Unheard"))
    with shown(bank, driver, permanent="dead", lease_ms=2000) as (process, page):
        bank.wait(lambda: page.shows("#kinds tbody", "60") and page.shows("#troubles_note", "the first 50 of 61"), what="the kinds")
        rows = page.texts("#kinds tbody tr")
        assert len(rows) == 2 and rows[0].startswith("60 dead MoneyDeposited data: account: payload.amount: expected"), rows
        page.screenshots("kinds")
        bank.outbox.update_many({"event_type": "MoneyDeposited"}, {"$set": {"event_type": "AccountOpened", "payload": {"user_id": "u1", "name": "Ada", "balance": decimal("1.00")}}})
        bank.wait(lambda: page.shows("#kinds tbody tr:first-child", "60 dead AccountOpened"), what="the changed events")
        page.click('#kinds tbody tr:first-child button')
        page.driver.find_element(By.ID, "token").send_keys(TOKEN)
        page.click("#token_dialog button.main")
        bank.wait(lambda: page.shows("#decide_title", "Retry 60 events of this kind?"), what="the question")
        page.click("#decide_button")
        bank.wait(lambda: bank.outbox.count_documents({}) == 1, what="the others to be applied")
        process.wait_log(r'done by hand what="retry of 60 events \(AccountOpened, data: .*\), by 127\.0\.0\.1 over HTTP \(pid')
        page.check_clean()
    assert len(bank.rows("account")) == 60


def test_a_wrong_token_is_told_and_asked_for_again(bank, driver):
    bank.put(dead := impossible(bank, "a1"))
    button = f'li[data-event="{dead["_id"]}"] button[data-verb=skip]'
    with shown(bank, driver, permanent="dead") as (_, page):
        bank.wait(lambda: driver.find_elements(By.CSS_SELECTOR, button), what="the event")
        page.click(button)
        page.driver.find_element(By.ID, "token").send_keys("not the token of this one")
        page.click("#token_dialog button.main")
        bank.wait(lambda: page.shows("#troubles .result", "the token is missing or wrong"), what="the refusal")
        page.click(button)
        bank.wait(lambda: page.driver.find_element(By.ID, "token").is_displayed(), what="the question")
    assert bank.found(dead)["status"] == "dead"


@pytest.mark.thorough
def test_without_a_token_there_are_no_buttons(bank, driver):
    bank.put(dead := impossible(bank, "a1"))
    bank.mapping(name="bank", http="127.0.0.1:0", permanent="dead")
    with bank.start_projector() as process:
        page = Page(driver, Endpoint(process))
        bank.wait(lambda: driver.find_elements(By.CSS_SELECTOR, f'li[data-event="{dead["_id"]}"]'), what="the event")
        assert not any(button.is_displayed() for button in driver.find_elements(By.CSS_SELECTOR, "#troubles button"))
        assert page.shows("#troubles_note", "admin_token_file is not set")


@pytest.mark.thorough
def test_a_standby_says_who_works_and_a_stop_is_seen(bank, driver):
    with shown(bank, driver) as (owner, page):
        bank.wait(lambda: page.text("#role") == "working", what="the owner")
        with bank.start_projector() as standby:
            other = Page(driver, Endpoint(standby))
            bank.wait(lambda: other.shows("#summary", "is working"), what="the standby")
            assert other.text("#role") == "standing by"
            other.screenshots("standby")
            owner.stop()
            bank.wait(lambda: other.text("#role") == "working", what="the take-over")
            standby.stop()
            bank.wait(lambda: other.text("#role") == "no answer", what="the end")
            assert other.shows("#summary", "the figures below are stale")


@pytest.mark.thorough
def test_a_pause_is_the_state_that_the_page_names(bank, driver):
    with shown(bank, driver) as (_, page):
        bank.wait(lambda: page.text("#role") == "working", what="the owner")
        assert bank.projector("pause").returncode == 0
        bank.wait(lambda: page.text("#role") == "paused", what="the pause")
        page.screenshots("paused")
        assert bank.projector("resume").returncode == 0
        bank.wait(lambda: page.text("#role") == "working", what="the end of the pause")


def give_token(page: Page) -> None:
    page.driver.find_element(By.ID, "token").send_keys(TOKEN)
    page.click("#token_dialog button.main")


def test_the_buttons_pause_and_resume(bank, driver):
    with shown(bank, driver) as (process, page):
        bank.wait(lambda: page.text("#role") == "working" and page.text("#pause_button") == "Pause", what="the owner")
        page.click("#pause_button")
        page.click('#token_dialog button[value=cancel]')
        assert json.loads(bank.projector("status", "--json").stdout)["paused"] is None  # nothing without the token
        page.click("#pause_button")
        give_token(page)
        bank.wait(lambda: page.text("#role") == "paused" and page.text("#pause_button") == "Resume", what="the pause")
        process.wait_log("warning paused")  # the owner hears of it with its next heartbeat
        bank.put(event := bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
        bank.wait(lambda: page.number("#queued") == 1, what="an event that waits")
        assert bank.found(event) and bank.rows("account") == []
        page.click("#pause_button")  # the token is known now
        bank.wait(lambda: page.shows("#pause_result", "Resumes within a few seconds"), what="the answer")
        bank.wait_gone(event)
        bank.wait(lambda: page.text("#role") == "working", what="the end of the pause")
        process.wait_log(r'done by hand what="resume, by 127\.0\.0\.1 over HTTP')
        page.check_clean()


@pytest.mark.thorough
def test_a_search_shows_what_explain_shows(bank, driver):
    bank.put(impossible(bank, "<b>a1</b>"))
    with shown(bank, driver, permanent="dead") as (_, page):
        bank.wait(lambda: page.shows("#troubles", "MoneyDeposited"), what="the dead event")
        page.driver.find_element(By.ID, "search_type").send_keys("account")
        page.driver.find_element(By.ID, "search_id").send_keys("<b>a1</b>")
        page.click("#search button")
        give_token(page)
        bank.wait(lambda: page.shows("#explained", "MoneyDeposited"), what="the aggregate")
        assert json.loads(page.text("#explained")) == json.loads(bank.projector("explain", "account", "<b>a1</b>", "--json").stdout)
        page.screenshots("explained")
        field = page.driver.find_element(By.ID, "search_id")
        field.clear()
        field.send_keys("nobody")
        page.click("#search button")
        bank.wait(lambda: page.shows("#search_result", "no such entity"), what="the refusal")
        assert not page.driver.find_element(By.ID, "explained").is_displayed()
