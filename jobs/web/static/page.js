// What htmx leaves to do: filters folded away on a phone, and copying.
document.documentElement.classList.add("js");

const filters = document.querySelector("details.filters");
if (filters && window.matchMedia("(max-width: 52rem)").matches) filters.open = false;

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
