"""Drawings of the graph: what stands in the page, that nothing in it can run, and the pictures."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from drawing_bench import EVIL, finding, many, sample
from page_browser import NAMES as BROWSERS
from page_browser import Page, find_browser, headless

from mtl.errors import RequestError
from mtl.graph import Evidence, build_graph
from mtl.graph.layout import NEGATIVE, NEUTRAL, POSITIVE, positions, strokes, thickness
from mtl.graph.matrix import matrix_text, transfer_matrix
from mtl.graph.page import write_page
from mtl.graph.picture import draw_graph, draw_matrix
from mtl.words import printable

SVG = "{http://www.w3.org/2000/svg}"


class Reader(HTMLParser):
    """Elements and attributes as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def read(path: Path) -> tuple[str, Reader, ElementTree.Element]:
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    svg = re.search(r"<svg.*?</svg>", text, re.DOTALL)
    assert svg is not None
    return text, reader, ElementTree.fromstring(svg.group(0))


def test_nodes_edges_colours_and_widths(tmp_path: Path) -> None:
    graph = sample()
    said = write_page(graph, tmp_path / "graph.html")
    assert said == {"nodes": 6, "edges": 6}
    _, _, svg = read(tmp_path / "graph.html")
    edges = [e for e in svg.iter(f"{SVG}path") if e.get("class") == "edge"]
    nodes = [e for e in svg.iter(f"{SVG}g") if e.get("class") == "node"]
    assert (len(edges), len(nodes)) == (6, 6)
    names = {node.find(f"{SVG}text").text for node in nodes}  # type: ignore[union-attr]
    assert {"s/good", "s/bad", "s/seen", "s/told", "t/own"} < names
    by = {s.source: (s, edges[i]) for i, s in enumerate(strokes(graph))}
    assert by["s/good"][1].get("stroke") == POSITIVE
    assert by["s/bad"][1].get("stroke") == NEGATIVE
    assert by["s/seen"][1].get("stroke") == NEUTRAL
    assert by["s/told"][1].get("stroke-dasharray")
    width = {source: float(edge.get("stroke-width", "0")) for source, (_, edge) in by.items()}
    assert width["s/good"] > width["s/bad"] > width[f"s/{EVIL}"]
    for edge in edges:  # every number of every path is a number
        places = [float(x) for x in re.findall(r"-?\d+\.?\d*|nan|inf", edge.get("d", ""))]
        assert np.isfinite(places).all()


def test_hover_shows_numbers_and_provenance(tmp_path: Path) -> None:
    write_page(sample(), tmp_path / "graph.html")
    text, _, _ = read(tmp_path / "graph.html")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data = json.loads(found.group(1))
    names = [node["id"] for node in data["nodes"]]
    texts = {names[edge["source"]]: edge["text"] for edge in data["edges"]}
    assert texts["s/good"].startswith("s/good → t/own\n")
    assert "measured (average): +0.2000 [+0.1000, +0.3000] of one run, n = 400" in texts["s/good"]
    assert "predicted (logme): -0.5000" in texts["s/good"]
    assert "own base/toy/own/seed0" in texts["s/good"]
    assert "python -m mtl.compose --target own" in texts["s/good"]
    assert "by layer: 0 0.300, 1 0.500" in texts["s/seen"]
    assert "its own adapter" in data["nodes"][names.index("t/own")]["text"]


def test_nothing_from_a_zoo_can_run_or_call_out(tmp_path: Path) -> None:
    write_page(sample(), tmp_path / "graph.html", target="t/own")
    text, reader, _ = read(tmp_path / "graph.html")
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("script") == 2
    assert "img" not in tags
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"src", "href", "action"} & set(attributes)
    assert "<script>alert" not in text
    assert "\u202e" not in text  # turns what follows round on a screen
    assert text.count("@data@") == text.count("&amp;@data@") + text.count("\\u0026@data@")
    (policy,) = [a["content"] for t, a in reader.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count("<svg") == 1


def test_kinds_scores_and_targets(tmp_path: Path) -> None:
    graph = sample()
    assert {s.finding["kind"] for s in strokes(graph, kinds=("predicted",))} == {"predicted"}
    two = strokes(graph, kinds=("predicted",))
    assert [s.strength for s in two] == [0.0, 1.0]  # ranked within the target, best strongest
    assert two[1].source == "s/good"
    assert strokes(graph, kinds=("predicted",), score="knn") == []
    assert strokes(graph, target="s/good") == []
    assert write_page(build_graph([], []), tmp_path / "empty.html") == {"nodes": 0, "edges": 0}
    assert "0 tasks" in (tmp_path / "empty.html").read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_runs(tmp_path: Path) -> None:
    graph = sample()
    write_page(graph, tmp_path / "graph.html")
    done = subprocess.run(
        ["node", str(Path(__file__).with_name("page_dom.js")), str(tmp_path / "graph.html")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ready"] == "nodes 6 edges 6"
    first = strokes(graph)[0]
    assert said["hovered"].startswith(f"{printable(first.source)} → {first.target}")
    assert said["node"].splitlines()[0] == printable(min(graph))
    strongest = sum(stroke.strength == 1.0 for stroke in strokes(graph))
    assert said["filtered"] == f"{strongest} of 6 edges"
    assert said["faint"] == 6 - strongest


def in_a_browser(path: Path, tmp_path: Path) -> AbstractContextManager[Page]:
    found = find_browser()
    if found is None:
        pytest.skip(f"no browser is installed (CHROME_PATH, {', '.join(BROWSERS)})")
    return headless(found, tmp_path / "profile")


OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll(".node text")].map(e => e.getBoundingClientRect());
  const nodes = [...document.querySelectorAll(".node circle")];
  const circles = nodes.map(e => e.getBoundingClientRect());
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  let count = 0;
  boxes.forEach((a, i) => {
    boxes.forEach((b, j) => { if (i < j && over(a, b)) count += 1; });
    circles.forEach((b, j) => { if (i !== j && over(a, b)) count += 1; });
  });
  return count;
})()"""


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [6, 20])
def test_a_browser_opens_it(tasks: int, tmp_path: Path) -> None:
    """No script error, no request, nodes and edges there; hovering and filtering work."""
    graph = sample() if tasks == 6 else many(20)
    path = tmp_path / "graph.html"
    said = write_page(graph, path)
    with in_a_browser(path, tmp_path) as page:
        page.open(path)
        ready = page.evaluate('document.documentElement.getAttribute("data-ready")')
        assert ready == f"nodes {said['nodes']} edges {said['edges']}"
        assert page.evaluate('document.querySelectorAll("svg .edge").length') == said["edges"]
        assert page.evaluate('document.querySelectorAll("svg .node").length') == said["nodes"]
        assert page.evaluate(OVERLAPS) == 0
        wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1]  # nothing sticks out to the side
        # every pointer position over an edge's middle shows some edge or task
        strongest = strokes(graph)[-1]
        x, y = page.evaluate(
            "(() => { const e = [...document.querySelectorAll('.edge')].pop();"
            "const p = e.getPointAtLength(e.getTotalLength() * 0.5), m = e.getScreenCTM();"
            "const q = new DOMPoint(p.x, p.y).matrixTransform(m); return [q.x, q.y]; })()"
        )
        page.point(x, y)
        tip = page.evaluate('document.getElementById("tip").textContent')
        assert tip.startswith(f"{printable(strongest.source)} → {printable(strongest.target)}\n")
        assert page.evaluate("document.querySelectorAll('.edge.lit').length") == 1
        box = page.evaluate(
            "(() => { const b = document.getElementById('tip').getBoundingClientRect();"
            "return [b.left, b.top, b.right - innerWidth, b.bottom - innerHeight]; })()"
        )
        assert min(box[:2]) >= 0  # the text is inside the window
        assert max(box[2:]) <= 0
        page.evaluate(
            "(() => { const t = document.getElementById('target');"
            f"t.value = {json.dumps(printable(strongest.target))};"
            "t.dispatchEvent(new Event('change')); })()"
        )
        into = sum(stroke.target == strongest.target for stroke in strokes(graph))
        shown = page.evaluate("document.querySelectorAll('.edge:not(.faint)').length")
        assert shown == into
        page.point(2, 2)
        assert page.evaluate('document.getElementById("tip").style.display') == "none"
        assert page.said("Runtime.exceptionThrown") == []
        assert page.said("Runtime.consoleAPICalled") == []
        assert page.said("Log.entryAdded") == []  # nothing that its policy had to forbid
        urls = {event["request"]["url"] for event in page.said("Network.requestWillBeSent")}
        assert urls == {path.as_uri()}


def test_an_interval_with_zero_is_drawn_pale_and_the_legend_says_so(tmp_path: Path) -> None:
    low = {"low": -0.1, "high": 0.3}
    graph = build_graph([], [finding("t/a", "measured", 0.1, **low), *certain()])
    write_page(graph, tmp_path / "graph.html")
    text, _, svg = read(tmp_path / "graph.html")
    edges = [e for e in svg.iter(f"{SVG}path") if "edge" in (e.get("class") or "")]
    assert sorted(str(e.get("class")) for e in edges) == ["edge", "edge", "edge pale"]
    assert "pale: the 95 % interval includes zero" in text
    assert "minus the own adapter&#x27;s" in text
    assert "has no sign" not in text
    write_page(build_graph([], certain()), tmp_path / "sure.html")
    assert "pale:" not in (tmp_path / "sure.html").read_text()


def certain() -> list[Evidence]:
    return [
        finding("t/b", "measured", 0.2, low=0.1, high=0.3),
        finding("t/c", "measured", -0.2, low=-0.3, high=-0.1),
    ]


def test_predictions_are_thinner_than_what_was_measured() -> None:
    by = {s.finding["kind"]: s for s in strokes(sample()) if s.strength == 1.0}
    assert thickness(by["measured"]) == 1.0
    assert thickness(by["predicted"]) < 0.5


# --- matrix and pictures


def test_the_transfer_matrix() -> None:
    matrix = transfer_matrix(sample(), "measured")
    assert matrix.targets == ["t/own"]
    assert matrix.sources == sorted(["s/good", "s/bad", f"s/{EVIL}"])
    row = dict(zip(matrix.sources, matrix.values[0], strict=True))
    assert (row["s/good"], row["s/bad"]) == (0.2, -0.1)
    text = matrix_text(matrix)
    assert "+0.2000*" in text
    assert "-0.1000*" in text
    assert "+0.0500*" not in text
    both = [finding("s/good", "measured", 0.9, method="fusion"), finding("s/b", "measured", 0.1)]
    mixed = transfer_matrix(build_graph([], [*both, finding("s/good", "measured", 0.2)]))
    assert (mixed.method, mixed.values.tolist()) == ("average", [[0.1, 0.2]])
    predicted = transfer_matrix(sample(), "predicted", "logme")
    assert predicted.to_dict()["values"] == [[-0.5, -1.0]]
    assert transfer_matrix(sample(), "measured", targets=["s/good"]).targets == []
    assert "no attribution evidence" in matrix_text(transfer_matrix(sample(), "attribution"))


def test_a_line_of_the_matrix_is_over_the_same_training_rows() -> None:
    """More rows are another transfer: what was measured on 300 is not beside what was on 100."""

    def at(source: str, value: float, rows: str, digest: str = "") -> Evidence:
        told = {"entry": {"digest": digest}, "created": "2026-12-01"}
        seeds = (0,) if rows == "few" else (0, 1)
        return finding(source, "measured", value, rows=rows, seeds=seeds, provenance=told)

    graph = build_graph(
        [],
        [
            *(at("s/a", 0.1, "few", "1"), at("s/b", 0.2, "few", "2"), at("s/a", 0.9, "many", "3")),
            *(at("s/c", 0.8, "many", "4"), at("s/b", 0.5, "other", "5"), at("s/c", 0.3, "few")),
        ],
    )
    matrix = transfer_matrix(graph)
    assert dict(zip(matrix.sources, matrix.values[0], strict=True)) == {
        "s/a": 0.1,
        "s/b": 0.2,
        "s/c": 0.3,
    }
    assert matrix.elsewhere == ()
    made = transfer_matrix(graph, runs={"3", "4", "5"})
    assert dict(zip(made.sources, made.values[0], strict=True)) == {"s/a": 0.9, "s/c": 0.8}
    assert made.to_dict()["elsewhere"] == [{"target": "t/own", "source": "s/b"}]
    assert "over other training rows than the rest of the line: s/b → t/own" in matrix_text(made)
    (one,) = transfer_matrix(graph, runs={"5"}).values.tolist()
    assert one == [0.5]


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def test_pictures(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw_graph(sample(), tmp_path / "graph.png")
    assert min(size_of(tmp_path / "graph.png")) > 400
    pixels = imread(tmp_path / "graph.png")[..., :3].reshape(-1, 3)
    for colour in (POSITIVE, NEGATIVE):  # both signs are there
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        wanted = 0.8 * wanted + 0.2  # over white
        assert (np.abs(pixels - wanted).max(1) < 0.02).sum() > 20
    draw_matrix(transfer_matrix(sample(), "measured"), tmp_path / "matrix.png")
    assert min(size_of(tmp_path / "matrix.png")) > 150
    draw_matrix(transfer_matrix(sample(), "predicted", "logme"), tmp_path / "scores.png")
    draw_graph(build_graph([], []), tmp_path / "empty.png")
    with pytest.raises(RequestError, match="no attribution evidence"):
        draw_matrix(transfer_matrix(sample(), "attribution"), tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_crowd_is_drawn_with_names_on_hover_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, 250, (600, 2)) if a != b]
    items = [finding(f"s/{a}", "measured", float(rng.normal()), target=f"s/{b}") for a, b in pairs]
    graph = build_graph([], items)
    said = write_page(graph, tmp_path / "crowd.html")
    assert said["nodes"] == len({node for pair in pairs for node in pair})
    assert said["edges"] == len(set(pairs))
    _, _, svg = read(tmp_path / "crowd.html")
    assert svg.get("class") == "crowd"
    _, reader, _ = read(tmp_path / "crowd.html")
    (slider,) = [a for tag, a in reader.tags if tag == "input" and a.get("id") == "least"]
    least = int(slider["value"] or 0)
    strengths = [stroke.strength for stroke in strokes(graph)]
    assert least > 0
    assert 400 < sum(strength * 100 >= least for strength in strengths) <= 500 < len(strengths)
    assert positions(graph, strokes(graph)) == positions(graph, strokes(graph))
