"""Looking again and again, and what is kept when there is no answer."""

import pytest
from cachelb.tools.stats.client import Admin, Down
from cachelb.tools.stats.poll import Poller
from fakes_stats import FakeAdmin, status, well


def test_what_was_known_stays_with_its_age():
    now = [100.0]
    answers = well()
    with FakeAdmin(answers) as fake:
        poller = Poller(Admin(fake.where), lambda: now[0])
        assert poller.last() is None
        assert poller.farm().answers.age_s == 0.0
        answers["/status"] = b"no JSON"
        now[0] = 130.0
        with pytest.raises(Down):
            poller.farm()
        last = poller.last()
    assert last is not None
    assert last.answers.age_s == 30.0
    assert "not as cachelb" in last.answers.problem
    assert len(last.nodes) == 3


def test_the_rest_may_be_missing():
    with FakeAdmin(well(**{"/hot": 500, "/history": 500})) as fake:
        found = Poller(Admin(fake.where), lambda: 0.0).farm()
    assert list(found.answers.missing) == ["history"]
    assert len(found.nodes) == 3
    assert [ask[1].split("?")[0] for ask in fake.asked] == ["/api/v1/status", "/api/v1/history"]  # no waiting for what is late


def test_history_and_hot_urls_are_not_asked_for_each_time():
    now = [0.0]
    with FakeAdmin(well()) as fake:
        poller = Poller(Admin(fake.where), lambda: now[0])
        for now[0] in (0.0, 0.5, 1.0, 1.5, 2.5):
            poller.farm()
    paths = [ask[1].split("?")[0] for ask in fake.asked]
    assert (paths.count("/api/v1/status"), paths.count("/api/v1/hot")) == (5, 2)


def test_the_status_before_is_kept_for_rates():
    answers = well()
    with FakeAdmin(answers) as fake:
        poller = Poller(Admin(fake.where), lambda: 0.0)
        assert poller.farm().answers.before is None
        answers["/status"] = status(epoch=8)
        found = poller.farm()
    assert found.answers.before is not None
    assert (found.answers.before["epoch"], found.status["epoch"]) == (7, 8)
