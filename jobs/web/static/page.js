// What htmx leaves to do: filters folded away on a phone, what is typed, forms that are sent twice, answers that
// are none, and copying.
document.documentElement.classList.add("js");

const filters = document.querySelector("details.filters");
if (filters && window.matchMedia("(max-width: 52rem)").matches) filters.open = false;

// Keyboards of phones put a blank behind a word; a value that is offered with one keeps it.
document.addEventListener("change", ({ target }) => {
  if (!target.matches("input[list]")) return;
  if (![...target.list.options].some((option) => option.value === target.value)) target.value = target.value.trim();
}, true);

// A double click says a thing once: of the second time, Undo would put back the first.
// In the review queue any second answer is one too many; elsewhere another button says something else.
let sent = null;
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  const said = document.getElementById("answer") ? document : event.submitter ?? event.target;
  if (sent === said) event.preventDefault();
  sent = said;
});
window.addEventListener("pageshow", () => { sent = null; });

// htmx shows no answer that refuses a search; the same address as a page says why.
document.addEventListener("htmx:responseError", ({ detail }) => {
  if (detail.requestConfig.elt.id === "filters") location.assign(detail.xhr.responseURL);
});

document.addEventListener("htmx:afterRequest", ({ detail }) => {
  if (detail.requestConfig.elt.id !== "live") return;
  const answered = detail.xhr.status === 200;
  document.getElementById("now").hidden = !answered;
  document.getElementById("silent").hidden = answered;
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl-C";
  }
});
