// Keys for the review queue: y, n, u answer, ← undoes, 1–9 and the other arrows choose a photo. Without this
// file there are buttons for it, one for each photo among them.
(() => {
  "use strict";
  const picks = [...document.querySelectorAll(".pick")];
  const large = document.getElementById("large");
  const photo = document.getElementById("photo");
  let at = 0;

  const choose = (number) => {
    if (number < 0 || number >= picks.length) return;
    at = number;
    picks.forEach((pick, n) => (n === at ? pick.setAttribute("aria-current", "true") : pick.removeAttribute("aria-current")));
    const thumb = picks[at].querySelector("img");
    large.src = picks[at].dataset.large;
    large.alt = thumb.alt;
    if (photo) photo.value = picks[at].dataset.sha256;
    picks[at].scrollIntoView({ block: "nearest", inline: "nearest" });
  };

  picks.forEach((pick, number) => pick.addEventListener("click", () => choose(number)));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input, select, textarea")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const button = document.querySelector(`[data-press="${CSS.escape(key)}"]`);
    if (button) button.click();
    else if (/^[1-9]$/.test(key)) choose(Number(key) - 1);
    else if (key === "ArrowRight" || key === "ArrowDown") choose(at + 1);
    else if (key === "ArrowUp") choose(at - 1);
    else return;
    event.preventDefault();
  });
})();
