"use strict";
// Draws surfaces into a plain 2D canvas, triangle by triangle with a depth buffer: no WebGL, which many hospital desktops
// lack. Three layers (brain, truth, prediction) are drawn on their own and blended by depth, so that the brain is glass.
(() => {
  const viewer = document.getElementById("solid");
  if (!viewer) return;
  const canvas = viewer.querySelector("canvas");
  const context = canvas.getContext("2d");
  const pick = (name) => viewer.querySelector(`[data-solid="${name}"]`);
  const cases = Array.from(document.querySelectorAll("script.solid"));
  // Where truth and prediction coincide the prediction is held a little nearer, so that both are seen.
  const looks = { truth: { colour: [94, 196, 255], alpha: 0.9 }, predicted: { colour: [255, 166, 0], alpha: 0.6, towards: -0.4 } };
  const kept = new Map();
  let turn = turning(0.6, 0.25);
  let layers = [];
  let waiting = false;

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  }

  function mesh(packed, origin, step, middle) {
    const places = new Uint16Array(bytes(packed.points));
    const faces = packed.wide ? new Uint32Array(bytes(packed.faces)) : new Uint16Array(bytes(packed.faces));
    const points = new Float32Array(places.length);
    for (let i = 0; i < places.length; i++) points[i] = origin[i % 3] + step * places[i] - middle[i % 3];
    const normals = new Float32Array(points.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const ux = points[b] - points[a], uy = points[b + 1] - points[a + 1], uz = points[b + 2] - points[a + 2];
      const vx = points[c] - points[a], vy = points[c + 1] - points[a + 1], vz = points[c + 2] - points[a + 2];
      for (const corner of [a, b, c]) {
        normals[corner] += uy * vz - uz * vy;
        normals[corner + 1] += uz * vx - ux * vz;
        normals[corner + 2] += ux * vy - uy * vx;
      }
    }
    for (let i = 0; i < normals.length; i += 3) {
      const size = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= size;
    }
    const shade = packed.shade ? new Uint8Array(bytes(packed.shade)) : null;
    return { points, normals, faces, shade, flat: new Float32Array(points.length), lit: new Float32Array(2 * points.length / 3) };
  }

  function solid(number) {
    if (!kept.has(number)) {
      const data = JSON.parse(cases[number].textContent);
      const unpack = (packed) => mesh(packed, data.origin, data.step, data.middle);
      const kinds = {};
      for (const [kind, regions] of Object.entries(data.kinds)) {
        kinds[kind] = Object.fromEntries(Object.entries(regions).map(([name, packed]) => [name, unpack(packed)]));
      }
      kept.set(number, { radius: data.radius, brain: unpack(data.brain), kinds });
    }
    return kept.get(number);
  }

  // The picture's x, y (downwards) and depth (away from the eye) of the patient's right-left, back-front, foot-head axes.
  function turning(azimuth, elevation) {
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    return [-ca, -sa, 0, -se * sa, se * ca, -ce, ce * sa, -ce * ca, -se, azimuth, elevation];
  }

  // Leaves in the layer's buffers the nearest surface per pixel: its depth, and how bright and how steep it is.
  function draw(layer, size, scale) {
    const { points, normals, faces, shade, flat, lit } = layer.mesh;
    const { depth, bright, steep, towards = 0 } = layer;
    depth.fill(Infinity);
    const half = size / 2;
    for (let i = 0, v = 0; i < points.length; i += 3, v++) {
      const [x, y, z] = [points[i], points[i + 1], points[i + 2]];
      flat[i] = half + scale * (turn[0] * x + turn[1] * y + turn[2] * z);
      flat[i + 1] = half + scale * (turn[3] * x + turn[4] * y + turn[5] * z);
      flat[i + 2] = turn[6] * x + turn[7] * y + turn[8] * z;
      const [nx, ny, nz] = [normals[i], normals[i + 1], normals[i + 2]];
      const [sx, sy, sz] = [
        turn[0] * nx + turn[1] * ny + turn[2] * nz,
        turn[3] * nx + turn[4] * ny + turn[5] * nz,
        turn[6] * nx + turn[7] * ny + turn[8] * nz,
      ];
      const light = Math.max(0, -0.36 * sx - 0.48 * sy - 0.8 * sz);
      lit[2 * v] = (0.3 + 0.7 * light) * (shade ? 0.35 + 0.65 * shade[v] / 255 : 1);
      lit[2 * v + 1] = 1 - Math.min(1, Math.abs(sz));
    }
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [faces[f], faces[f + 1], faces[f + 2]];
      const [ax, ay, bx, by, cx, cy] = [flat[3 * a], flat[3 * a + 1], flat[3 * b], flat[3 * b + 1], flat[3 * c], flat[3 * c + 1]];
      const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
      if (area >= 0) continue; // looks away from the eye
      const left = Math.max(0, Math.ceil(Math.min(ax, bx, cx)));
      const right = Math.min(size - 1, Math.floor(Math.max(ax, bx, cx)));
      const top = Math.max(0, Math.ceil(Math.min(ay, by, cy)));
      const bottom = Math.min(size - 1, Math.floor(Math.max(ay, by, cy)));
      for (let y = top; y <= bottom; y++) {
        for (let x = left; x <= right; x++) {
          const wb = ((cy - ay) * (x - ax) - (cx - ax) * (y - ay)) / area;
          const wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area;
          const wa = 1 - wb - wc;
          if (wa < 0 || wb < 0 || wc < 0) continue;
          const z = towards + wa * flat[3 * a + 2] + wb * flat[3 * b + 2] + wc * flat[3 * c + 2];
          const pixel = y * size + x;
          if (z >= depth[pixel]) continue;
          depth[pixel] = z;
          bright[pixel] = wa * lit[2 * a] + wb * lit[2 * b] + wc * lit[2 * c];
          steep[pixel] = wa * lit[2 * a + 1] + wb * lit[2 * b + 1] + wc * lit[2 * c + 1];
        }
      }
    }
  }

  function blend(size) {
    const image = context.createImageData(size, size);
    const data = image.data;
    for (let pixel = 0; pixel < size * size; pixel++) {
      let red = 0, green = 0, blue = 0, rest = 1, last = -Infinity;
      for (;;) { // from the nearest layer to the farthest
        let nearest = null, at = Infinity;
        for (const layer of layers) {
          const depth = layer.depth[pixel];
          if (depth > last && depth < at) { at = depth; nearest = layer; }
        }
        if (nearest === null) break;
        last = at;
        const edge = nearest.steep[pixel];
        const alpha = nearest.glass === undefined ? nearest.alpha : nearest.glass + (1 - nearest.glass) * 0.8 * edge * edge;
        const weight = rest * alpha * nearest.bright[pixel];
        red += weight * nearest.colour[0];
        green += weight * nearest.colour[1];
        blue += weight * nearest.colour[2];
        rest *= 1 - alpha;
      }
      if (rest === 1) continue;
      const shown = 1 - rest;
      data[4 * pixel] = red / shown;
      data[4 * pixel + 1] = green / shown;
      data[4 * pixel + 2] = blue / shown;
      data[4 * pixel + 3] = 255 * shown;
    }
    context.putImageData(image, 0, 0);
  }

  function letters(size, scale, radius) {
    context.font = `${Math.round(size / 30)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const axes = [["R", 1, 0, 0], ["L", -1, 0, 0], ["A", 0, 1, 0], ["P", 0, -1, 0], ["S", 0, 0, 1], ["I", 0, 0, -1]];
    for (const [letter, x, y, z] of axes) {
      const [px, py, away] = [0, 3, 6].map((k) => turn[k] * x + turn[k + 1] * y + turn[k + 2] * z);
      if (Math.hypot(px, py) < 0.35) continue; // points at the eye
      const far = 1.05 * radius * scale;
      context.fillStyle = away > 0.2 ? "#7c8794" : "#c9d3de";
      context.fillText(letter, size / 2 + px * far, size / 2 + py * far);
    }
  }

  function show() {
    waiting = false;
    const sharp = viewer.classList.contains("turning") ? 1 : Math.min(2, window.devicePixelRatio || 1);
    const size = Math.round(Math.max(160, canvas.clientWidth) * sharp);
    const number = Number(pick("case").value);
    const { radius, brain, kinds } = solid(number);
    const region = pick("region").value;
    const wanted = [];
    const glass = Number(pick("brain").value) / 100;
    if (glass > 0) wanted.push({ mesh: brain, colour: [214, 219, 226], glass: glass ** 2 });
    for (const kind of ["truth", "predicted"]) {
      const found = kinds[kind] && kinds[kind][region];
      if (found && pick(kind).checked) wanted.push({ mesh: found, ...looks[kind] });
    }
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const scale = size / (2.25 * radius);
    layers = wanted.map((layer, place) => {
      const old = layers[place];
      const buffers = old && old.depth.length === size * size ? old : null;
      const fresh = () => new Float32Array(size * size);
      return { ...layer, depth: buffers ? buffers.depth : fresh(), bright: buffers ? buffers.bright : fresh(), steep: buffers ? buffers.steep : fresh() };
    });
    layers.forEach((layer) => draw(layer, size, scale));
    blend(size);
    letters(size, scale, radius);
    pick("facts").textContent = cases[number].dataset.facts;
    canvas.dataset.triangles = String(layers.reduce((sum, layer) => sum + layer.mesh.faces.length / 3, 0));
    canvas.setAttribute("aria-label", `Surface of brain and tumour, ${cases[number].dataset.name}`);
  }

  function soon() {
    if (!waiting) requestAnimationFrame(show);
    waiting = true;
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY, turn[9], turn[10]];
    viewer.classList.add("turning");
    try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const speed = 4 / Math.max(1, canvas.clientWidth);
    const elevation = Math.max(-1.57, Math.min(1.57, held[3] + speed * (event.clientY - held[1])));
    turn = turning(held[2] - speed * (event.clientX - held[0]), elevation);
    soon();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => { held = null; viewer.classList.remove("turning"); soon(); });
  }
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    turn = turning(turn[9] - step[0], Math.max(-1.57, Math.min(1.57, turn[10] + step[1])));
    soon();
  });
  viewer.querySelectorAll("[data-from]").forEach((button) => button.addEventListener("click", () => {
    turn = turning(...button.dataset.from.split(" ").map(Number));
    soon();
  }));
  viewer.querySelectorAll("[data-solid]").forEach((field) => field.addEventListener("input", soon));
  window.addEventListener("resize", soon);
  viewer.hidden = false;
  if ("IntersectionObserver" in window) new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && soon()).observe(canvas);
  else soon();
})();
