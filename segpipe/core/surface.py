"""From a volume to the surface of what is in it: triangles, for pictures that can be turned.

Surface nets (Gibson 1998, 10.1007/BFb0056277): one vertex in every cell of eight voxels that the surface cuts, at the
mean of where it cuts the cell's edges, and one quad round every cut edge. Half the triangles of marching cubes, no
tables of cases, and no slivers.
"""

from dataclasses import dataclass

import numpy as np

_CORNERS = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if np.abs(_CORNERS[a] - _CORNERS[b]).sum() == 1])


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface: `vertices` (V, 3) float64, `faces` (F, 3) int64, counter-clockwise as seen from outside."""

    vertices: np.ndarray
    faces: np.ndarray

    def moved(self, affine: np.ndarray) -> "Mesh":
        """The mesh with its vertices mapped by a (4, 4) affine; a mirroring one turns the faces as well."""
        vertices = self.vertices @ affine[:3, :3].T + affine[:3, 3]
        mirrored = np.linalg.det(affine[:3, :3]) < 0
        return Mesh(vertices, self.faces[:, ::-1] if mirrored else self.faces)

    def volume(self) -> float:
        """What the surface encloses, in cubed units of the vertices; by the divergence theorem."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def surface(field: np.ndarray, level: float = 0.5) -> Mesh:
    """The surface between the voxels above `level` and the others, in index coordinates of `field` (I, J, K).

    Beyond the border of the array nothing is above. Without a voxel above the level the mesh has no vertices.
    """
    least = float(np.min(field, initial=np.inf))
    values = np.pad(np.asarray(field, np.float64), 1, constant_values=least if least <= level else 2 * level - least)
    inside = values > level
    cells, corners = _cut_cells(values, inside)
    numbers = np.full(np.array(inside.shape) - 1, -1)
    numbers[tuple(cells.T)] = np.arange(len(cells))
    faces = [_quads(inside, numbers, axis) for axis in range(3)]
    return Mesh(_vertices(cells, corners, level) - 1.0, np.concatenate(faces))


def thinned(volume: np.ndarray, steps: tuple[int, int, int]) -> np.ndarray:
    """Means of blocks of `steps` voxels, float32, the last blocks filled up with the least value of the volume.

    >>> thinned(np.arange(4).reshape(1, 1, 4), (1, 1, 2)).ravel().tolist()
    [0.5, 2.5]
    """
    rest = [(0, -size % step) for size, step in zip(volume.shape, steps, strict=True)]
    padded = np.pad(volume, rest, constant_values=volume.min()) if any(after for _, after in rest) else volume
    blocks = [part for size, step in zip(padded.shape, steps, strict=True) for part in (size // step, step)]
    return padded.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)


def thinned_affine(affine: np.ndarray, steps: tuple[int, int, int]) -> np.ndarray:
    """The affine of `thinned(volume, steps)`: index of a block to where the middle of its voxels lies."""
    change = np.diag([*map(float, steps), 1.0])
    change[:3, 3] = (np.array(steps) - 1) / 2
    return np.asarray(affine, np.float64) @ change


def _cut_cells(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least index of the cells with corners on both sides (A, 3), and the values at their corners (A, 8)."""
    count = sum(_shifted(inside, corner).astype(np.uint8) for corner in _CORNERS)
    cells = np.argwhere((count > 0) & (count < 8))
    corners = np.stack([values[tuple((cells + corner).T)] for corner in _CORNERS], axis=1)
    return cells, corners


def _shifted(inside: np.ndarray, corner: np.ndarray) -> np.ndarray:
    return inside[tuple(slice(at, at + size - 1) for at, size in zip(corner, inside.shape, strict=True))]


def _vertices(cells: np.ndarray, corners: np.ndarray, level: float) -> np.ndarray:
    low, high = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    cut = (low > level) != (high > level)
    share = np.where(cut, (level - low) / np.where(cut, high - low, 1.0), 0.0)
    start, along = _CORNERS[_EDGES[:, 0]], _CORNERS[_EDGES[:, 1]] - _CORNERS[_EDGES[:, 0]]
    points = (start[None] + share[..., None] * along[None]) * cut[..., None]
    return cells + points.sum(axis=1) / cut.sum(axis=1, keepdims=True).clip(1)


def _quads(inside: np.ndarray, numbers: np.ndarray, axis: int) -> np.ndarray:
    """Two triangles round every edge along `axis` whose ends lie on different sides."""
    first = np.moveaxis(inside, axis, 0)
    edges = np.argwhere(first[:-1] != first[1:])
    cells = np.moveaxis(numbers, axis, 0)
    rings = [cells[edges[:, 0], edges[:, 1] + a, edges[:, 2] + b] for a, b in ((0, 0), (-1, 0), (-1, -1), (0, -1))]
    ring = np.stack(rings, axis=1).reshape(-1, 4)
    # Moving one axis to the front is a rotation for axes 0 and 2 and a reflection for axis 1.
    outward = first[tuple(edges.T)] == (axis == 1)
    ring = np.where(outward[:, None], ring[:, ::-1], ring)
    return np.concatenate([ring[:, [0, 1, 2]], ring[:, [0, 2, 3]]])
