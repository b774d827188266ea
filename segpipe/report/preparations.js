document.querySelectorAll("[data-layer]").forEach((box) => box.addEventListener("input", () => {
  document.getElementById("checked").classList.toggle(`no-${box.dataset.layer}`, !box.checked);
}));
document.querySelectorAll("#layers").forEach((controls) => { controls.hidden = false; });
