"""Surfaces as a page holds them: in their place, shaded by the image, small, and turned by the mouse in a browser."""

import base64
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.surface import Mesh
from segpipe.readers import nifti
from segpipe.report import build
from segpipe.report.solids import mesh_of, normals, pack, shades, smoothed, solids
from tests.core.test_surface import ball
from tests.report.chromium import Page, open_page
from tests.report.small_warehouse import COHORT, RULE, Case, Results, generate, write_results
from tests.report.test_page import read

AFFINE = np.array([[0, 0, -2.0, 90], [0, -1.5, 0, 60], [1.2, 0, 0, -40], [0, 0, 0, 1]])


def unpacked(packed: dict, origin: list[float], step: float) -> Mesh:
    places = np.frombuffer(base64.b64decode(packed["points"]), "<u2").reshape(-1, 3)
    faces = np.frombuffer(base64.b64decode(packed["faces"]), "<u4" if packed["wide"] else "<u2").reshape(-1, 3)
    return Mesh(np.array(origin) + step * places, faces.astype(int))


def test_what_is_packed_keeps_its_place_and_volume() -> None:
    brain, tumour = ball((50, 60, 40), (25, 30, 20), 18.0) > 0, ball((50, 60, 40), (20, 33, 24), 8.0) > 0
    packed = solids(brain.astype(np.float32), brain, {"truth": {"lesion": tumour}}, AFFINE, (0.0, 1.0))
    for one, volume in ((packed["brain"], brain), (packed["kinds"]["truth"]["lesion"], tumour)):
        mesh = unpacked(one, packed["origin"], packed["step"])
        voxel_mm3 = abs(np.linalg.det(AFFINE[:3, :3]))
        assert mesh.volume() == pytest.approx(volume.sum() * voxel_mm3, rel=0.08)
        centre = AFFINE @ (*np.argwhere(volume).mean(axis=0), 1.0)
        np.testing.assert_allclose(mesh.vertices.mean(axis=0), centre[:3], atol=1.0)
        assert len(mesh.vertices) == one["count"]
    json.dumps(packed)


def test_normals_of_a_ball_point_away_from_its_middle() -> None:
    mesh = mesh_of(ball((40, 40, 40), (20, 20, 20), 15.0) > 0, np.eye(4), 1.0)
    outward = mesh.vertices - 20
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    assert np.median((normals(mesh) * outward).sum(axis=1)) > 0.97


def test_shade_is_the_image_below_the_surface() -> None:
    inside = ball((40, 40, 40), (20, 20, 20), 15.0) > 0
    image = np.where(np.indices(inside.shape)[0] < 20, 10.0, 30.0).astype(np.float32)
    mesh = mesh_of(inside, np.eye(4), 1.0)
    found = shades(mesh, image, np.eye(4), (10.0, 50.0))
    assert set(found[mesh.vertices[:, 0] < 16]) == {0}
    assert set(found[mesh.vertices[:, 0] > 24]) == {128}


def test_meshes_are_bounded_whatever_the_scan() -> None:
    noise = np.random.default_rng(0).random((60, 60, 60)) > 0.5
    assert len(mesh_of(noise, np.eye(4) * 0.3, 0.3).vertices) <= 30_000


def test_empty_region_has_no_triangles() -> None:
    assert pack(mesh_of(np.zeros((5, 5, 5), bool), np.eye(4), 1.0), np.zeros(3), 1.0)["triangles"] == 0


def test_smoothing_keeps_the_sum_away_from_borders() -> None:
    field = np.zeros((5, 5, 5))
    field[2, 2, 2] = 64.0
    assert smoothed(field).sum() == 64.0
    assert smoothed(field)[2, 2, 2] == 8.0


def test_page_holds_the_worst_scans_first(results: Results, tmp_path: Path) -> None:
    text = read(build(str(results.warehouse), COHORT, str(results.model), tmp_path / "r.html", surfaces=2))
    blocks = re.findall(r'<script type="application/json" class="solid" data-name="([^"]*)"[^>]*>(.*?)</script>', text)
    assert [name for name, _ in blocks] == ["Synthetic_07_013", "Synthetic_07_010"]
    kinds = json.loads(blocks[1][1])["kinds"]
    assert set(kinds) == {"truth", "predicted"}
    assert "whole_tumour" in kinds["truth"]
    assert not json.loads(blocks[0][1])["kinds"]["predicted"]  # segmented empty
    assert 'class="solid"' not in read(
        build(str(results.warehouse), COHORT, str(results.model), tmp_path / "r.html", surfaces=0)
    )


COUNT = """(() => {
  const canvas = document.querySelector("#solid canvas");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let [blue, orange, sum] = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] < 100) continue;
    if (data[i + 2] > data[i] + 40) blue++;
    if (data[i] > data[i + 2] + 40) orange++;
    sum += (i % 9973) * data[i];
  }
  return { blue, orange, sum };
})()"""


class Viewer:
    """The page's 3D viewer, used as a person does; every step gives what is seen after it."""

    def __init__(self, page: Page):
        self.page = page
        page.ask("document.querySelector('#solid canvas').scrollIntoView({ block: 'center' })")
        page.wait_for("!!document.querySelector('#solid canvas').dataset.triangles")
        place = page.ask(
            "(({ x, y, width }) => ({ x, y, width }))(document.querySelector('#solid canvas').getBoundingClientRect())"
        )
        self.x, self.y = place["x"] + place["width"] / 2, place["y"] + place["width"] / 2

    def seen(self) -> dict[str, float]:
        self.page.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        found: dict[str, float] = self.page.ask(COUNT)
        return found

    def drag(self, right: float, down: float) -> dict[str, float]:
        self.page.mouse("mousePressed", self.x, self.y)
        self.page.mouse("mouseMoved", self.x + right, self.y + down)
        self.page.mouse("mouseReleased", self.x + right, self.y + down)
        return self.seen()

    def move(self, right: float) -> dict[str, float]:
        self.page.send("Input.dispatchMouseEvent", type="mouseMoved", x=self.x + right, y=self.y)
        return self.seen()

    def choose(self, name: str, property_: str, value: object) -> dict[str, float]:
        field = f"document.querySelector('[data-solid=\"{name}\"]')"
        self.page.ask(f"{field}.{property_} = {json.dumps(value)}; {field}.dispatchEvent(new Event('input'))")
        return self.seen()


def test_surface_turns_with_the_mouse_in_a_browser(browser: list[str], page: Path, tmp_path: Path) -> None:
    with open_page(browser, tmp_path / "profile") as opened:
        opened.size(1000, 900)
        opened.open(page.as_uri())
        viewer = Viewer(opened)
        first = viewer.choose("case", "value", "1")
        assert first["blue"] > 50
        assert first["orange"] > 50
        dragged = viewer.drag(120, 40)
        assert dragged != first
        assert viewer.move(-200) == dragged  # released: the mouse alone turns nothing
        opened.ask("document.querySelector('#solid canvas').focus()")
        opened.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
        turned = viewer.seen()
        assert turned != dragged
        opened.ask("document.querySelector('[data-from]').click()")
        assert viewer.seen() != turned
        truth_only = viewer.choose("predicted", "checked", False)
        assert truth_only["orange"] == 0 < truth_only["blue"]
        viewer.choose("truth", "checked", False)
        predicted_only = viewer.choose("predicted", "checked", True)
        assert predicted_only["blue"] == 0 < predicted_only["orange"]
        assert not opened.errors
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data"}


def test_page_fits_a_phone(browser: list[str], page: Path, tmp_path: Path) -> None:
    with open_page(browser, tmp_path / "profile") as opened:
        opened.size(390, 844)
        opened.open(page.as_uri())
        assert opened.ask("document.documentElement.scrollWidth") == 390
        assert Viewer(opened).drag(60, 0)["blue"] > 50


@pytest.mark.real
def test_page_of_real_scans_is_made_soon_and_stays_small(real_data: Path, tmp_path: Path) -> None:
    cases = [real_case(folder) for folder in sorted((real_data / "brats2021").iterdir())[:2]]
    made = write_results(tmp_path, cases)
    start = time.perf_counter()
    output = Path(build(str(made.warehouse), COHORT, str(made.model), tmp_path / "r.html", surfaces=2))
    assert time.perf_counter() - start < 60
    text = output.read_text("utf-8")
    blocks = re.findall(r'class="solid"[^>]*>(.*?)</script>', text)
    strips = len(text) - sum(map(len, blocks))
    assert 6 * max(map(len, blocks)) + 24 * strips < 20_000_000  # a page with all the pictures that it may have
    shell = json.loads(blocks[0])["brain"]
    assert 5_000 < shell["count"] <= 30_000


def real_case(folder: Path) -> Case:
    """A scan of BraTS 2021 with its truth moved by two voxels as the prediction."""
    volumes = {role: nifti.read(folder / f"{folder.name}_{role}.nii.gz") for role in ("flair", "t1", "seg")}
    turned = {role: volume.voxels.transpose(2, 1, 0) for role, volume in volumes.items()}
    truth = np.ascontiguousarray(turned.pop("seg").astype(np.uint8))
    affine = volumes["t1"].affine[:, [2, 1, 0, 3]]
    return Case(
        subject=folder.name,
        session="1",
        split=RULE.of(folder.name),
        modalities=list(turned),
        images=[np.ascontiguousarray(image) for image in turned.values()],
        truth=truth,
        predicted=np.roll(truth, 2, axis=1),
        affine=affine,
        spacing_mm=(1.0, 1.0, 1.0),
    )


def test_a_head_that_is_not_stripped_has_no_surface(tmp_path: Path) -> None:
    """The tumour's stays: it is nobody's likeness."""
    rng = np.random.default_rng(0)
    cases = [generate(0, number, (24, 40, 36)) for number in range(3)]
    raw = [
        replace(case, images=[image + rng.integers(1, 9, image.shape, image.dtype) for image in case.images])
        for case in cases
    ]
    counts = []
    for name, of in (("stripped", cases), ("raw", raw)):
        made = write_results(tmp_path / name, of)
        output = Path(build(str(made.warehouse), COHORT, str(made.model), tmp_path / f"{name}.html", surfaces=3))
        text = output.read_text("utf-8")
        blocks = [json.loads(one) for one in re.findall(r'class="solid"[^>]*>(.*?)</script>', text)]
        counts.append([(block["brain"]["count"], len(block["kinds"]["truth"])) for block in blocks])
        assert ("not stripped" in text) == (name == "raw")
    stripped, unstripped = counts
    assert min(count for count, _ in stripped) > 100
    assert {count for count, _ in unstripped} == {0}
    assert [kinds for _, kinds in unstripped] == [kinds for _, kinds in stripped]
