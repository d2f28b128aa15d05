"""The report as Markdown, HTML and model card: complete, safe to open, and the user's own files left alone."""

from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.formatting.markdown import cell, code, escaped, table
from orchestrator.report.collect import collect
from orchestrator.report.facts import Facts
from orchestrator.report.make import make
from orchestrator.report.render.html import inline, to_html
from orchestrator.report.render.model_card import MARK, render_card
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import START, Run
from tests.unit.orchestrator.series_runs import facts as told
from tests.unit.orchestrator.series_runs import played, series, validation

LATER = START + 1e6
DOG = "Hund & <Katze>"


def _run(home: Path, **settings: Any) -> Run:
    train = {place: 2.0 - place / 1000 for place in range(10, 601, 10)}
    measured = {place: validation(place, 2.0 - place / 1000) for place in range(0, 601, 100)}
    return played(home, lambda _: series(train, measured, told=told()), **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """The facts of a run of which everything was told."""
    home = tmp_path_factory.mktemp("home")
    run = _run(home, lq={"name": DOG, "prompts": ["Q: LoRA?\nA:"]}, resume_adapter_file=None)
    with run.store:
        return collect(run.store, run.id, now=LATER)


def _row(text: str, first: str) -> str:
    line = next(line for line in text.splitlines() if re.match(rf"\| +{re.escape(first)} +\|", line))
    return re.sub(r" +", " ", line)


# --- what it says ---


def test_the_data_set_is_told_as_the_trainer_saw_it(whole: Facts) -> None:
    text = render(whole)
    assert _row(text, "train") == "| train | 422 | 84,000 | 61,000 | 31 | 180 | 420 | 2,950 | 3 |"
    assert "Padding: 12.3 % of all positions of an epoch. 4 training rows repeat another." in text
    assert "Of 60 validation rows the training set has 0 word for word; nearly: 2." in text
    assert "| `valid.jsonl` row 3 | 17 | 91 % |" in re.sub(r" +", " ", text)


def test_the_adapter_and_the_machine_are_told(whole: Facts) -> None:
    text = render(whole)
    assert _row(text, "Trained parameters") == "| Trained parameters | 9,232,384 of 1,543,714,304 (0.598 %) |"
    assert _row(text, "Scale") == "| Scale | 20 (alpha 160) |"
    assert _row(text, "Targets") == "| Targets | `self_attn.q_proj`, `mlp.up_proj` |"
    assert _row(text, "Headroom") == "| Headroom | 1.3 GB (22.4 % of the limit) |"
    assert _row(text, "Swap of the machine") == "| Swap of the machine | 1 GB at first, 1.02 GB at most |"
    assert _row(text, "Speed") == "| Speed | 2 it/s in the first tenth, 1.99 it/s in the last |"
    assert _row(text, "Battery") == "| Battery | 100 % before, 42 % after |"
    assert _row(text, "`checkpoints/step-0000600`").endswith("| yes | best by validation |")


def test_answers_stand_side_by_side_with_their_lines(whole: Facts) -> None:
    assert "| Q: LoRA?<br>A: | a \\| b | Low<br><br>\\<rank\\>. |" in re.sub(r" +", " ", render(whole))


def test_the_base_model_is_compared_in_pairs(whole: Facts) -> None:
    assert re.search(
        r"\| validation \| +2\.\d+ \| +1\.\d+ \| -0\.\d+ \(95 % interval .*\), paired over 60 rows", render(whole)
    )
    assert "Before is the base model: an untrained adapter changes nothing." in render(whole)


def test_a_start_from_other_weights_is_not_called_the_base_model(tmp_path: Path) -> None:
    run = _run(tmp_path, resume_adapter_file="/w/adapters.safetensors")
    with run.store:
        text = render(collect(run.store, run.id, now=LATER))
    assert "Before is the weights of `/w/adapters.safetensors`." in text
    assert "the base model:" not in text


def test_nothing_told_reads_not_measured(tmp_path: Path) -> None:
    with Run(tmp_path).store as store:
        text = render(collect(store, 1, now=LATER))
    for name in ("Targets", "Memory limit", "Headroom", "Speed", "Battery", "Trained parameters"):
        assert _row(text, name) in (f"| {name} | not measured |", f"| {name} | – |")
    assert "Tokens, lengths, padding and duplicates: not measured." in text
    assert "The model before training: not measured." in text


def test_no_word_judges_where_no_rule_did(whole: Facts) -> None:
    words = set(re.findall(r"[a-z]+", render(whole).lower()))
    assert not words & {"excellent", "good", "great", "normal", "healthy", "stable", "poor", "bad", "successful"}


# --- HTML ---


class Page(HTMLParser):
    """A page, taken apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data


PNG = {"loss_curve.png": (b"light", b"dark"), "training_analysis.png": (b"l2", b"d2")}


def test_the_page_needs_no_script_and_asks_nobody_for_anything(whole: Facts) -> None:
    page = Page(to_html(render(whole), DOG, PNG))
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    addresses = [value for _, found in page.tags for key, value in found.items() if key in ("src", "srcset", "href")]
    assert len(addresses) == 4
    assert all(address is not None and address.startswith("data:image/png;base64,") for address in addresses)
    assert not [found for _, found in page.tags if any(key.startswith("on") for key in found)]
    assert "url(" not in to_html(render(whole), DOG, PNG)


def test_the_pictures_are_in_it_for_light_and_dark(whole: Facts) -> None:
    text = to_html(render(whole), DOG, PNG)
    dark, light = (base64.b64encode(one).decode() for one in (b"dark", b"light"))
    assert f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">' in text
    assert f'src="data:image/png;base64,{light}"' in text
    assert "prefers-color-scheme: dark" in text.split("</style>")[0]


def test_the_page_says_what_the_markdown_says(whole: Facts) -> None:
    text = render(whole)
    page = Page(to_html(text, DOG, PNG))
    assert f"{DOG} (job 1): succeeded (completed)" in page.text
    assert sum(tag == "table" for tag, _ in page.tags) == len(re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE))
    assert sum(tag == "pre" for tag, _ in page.tags) == text.count("```sh")
    assert [tag for tag, _ in page.tags].count("h2") == len(re.findall(r"^## ", text, re.MULTILINE))
    assert "a | b" in page.text
    assert "mlx_lm.generate --model /models/tiny" in page.text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40))
def test_foreign_text_comes_through_as_it_is_and_never_as_markup(text: str) -> None:
    line = " ".join(text.split())
    for shown in (inline(escaped(text)), inline(code(line)) if line else ""):
        plain = re.sub(r"^<code>|</code>$", "", shown)
        assert "<" not in plain
        assert html.unescape(plain) in (line, "")
    page = to_html("\n".join(table(("A", "B"), [(escaped(text), cell(text))])), text, {})
    assert Page(page).tags.count(("td", {})) == 2


# --- the model card ---


def _card(facts: Facts) -> tuple[dict[str, Any], str]:
    _, head, body = render_card(facts).split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_model_hub_can_read_the_card(whole: Facts) -> None:
    head, _ = _card(whole)
    assert (head["base_model"], head["library_name"], head["datasets"]) == ("tiny", "mlx", [])
    assert {"mlx", "lora"} <= set(head["tags"])
    [index] = head["model-index"]
    [result] = index["results"]
    assert index["name"] == DOG
    loss, perplexity = result["metrics"]
    assert loss["args"]["n"] == 60
    low, high = loss["args"]["interval_95"]
    assert low < loss["value"] < high
    assert "n=60, 95 % interval" in loss["name"]
    assert perplexity["type"] == "perplexity"


def test_names_of_the_hub_are_named_and_folders_are_not(tmp_path: Path) -> None:
    run = _run(tmp_path, model="Qwen/Qwen2.5-1.5B-Instruct", data="mlx-community/WikiSQL")
    with run.store:
        facts = collect(run.store, run.id, now=LATER)
    head, body = _card(facts)
    assert (head["base_model"], head["datasets"]) == ("Qwen/Qwen2.5-1.5B-Instruct", ["mlx-community/WikiSQL"])
    assert str(tmp_path) not in render_card(facts)
    assert "--model Qwen/Qwen2.5-1.5B-Instruct --adapter-path ." in body


def test_a_card_names_nothing_of_the_users_machine(whole: Facts) -> None:
    text = render_card(whole)
    for private in ("/models", "/data", whole.job.job_dir, "LQ_HOME"):
        assert private not in text


def test_the_card_lies_beside_the_adapter_and_a_users_own_readme_stays(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
    run = _run(tmp_path, adapter_path=str(own))
    with run.store:
        (own / "lq.json").write_text(json.dumps({"job_dir": str(run.folder)}))
        make(run.store, run.id, now=LATER)
        assert MARK in (own / "README.md").read_text()
        assert MARK in (run.folder / "adapters/README.md").read_text()
        (own / "README.md").write_text("# mine\n")
        make(run.store, run.id, now=LATER)
        assert (own / "README.md").read_text() == "# mine\n"


def test_a_folder_that_holds_another_runs_adapter_gets_no_card(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "lq.json").write_text(json.dumps({"job_dir": "/another"}))
    run = _run(tmp_path, adapter_path=str(own))
    with run.store:
        make(run.store, run.id, now=LATER)
    assert not (own / "README.md").exists()
