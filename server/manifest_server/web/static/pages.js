// What pages do beyond links and forms. Everything here is an addition: without it they still work.

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function tell(text) {
  const told = one("#told");
  told.textContent = text;
  told.classList.add("told");
  setTimeout(() => told.classList.remove("told"), 1800);
}

// Light and dark: as the system has it, until somebody chooses.
function readyTheme() {
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  const button = one("[data-theme-toggle]");
  button.hidden = false;
  button.addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", document.documentElement.dataset.theme);
  });
}

function readyHelp() {
  const button = one("[data-help]");
  button.hidden = false;
  button.addEventListener("click", () => one("#help").showModal());
}

function readyCopying(within) {
  for (const button of all("[data-copy]", within)) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      tell("Copied");
    });
  }
}

// What is selected survives when the list is replaced.
const selected = new Set();

function readySelection(within) {
  const boxes = all("input[name=ids]", within);
  const say = () => {
    const count = one("[data-selected]");
    if (!count) return;
    count.textContent = selected.size ? `${selected.size} selected` : "Select two runs or more.";
    one("[data-compare]").disabled = selected.size < 2;
  };
  for (const box of boxes) {
    box.checked = box.checked || selected.has(box.value);
    if (box.checked) selected.add(box.value);
    box.addEventListener("change", () => {
      box.checked ? selected.add(box.value) : selected.delete(box.value);
      say();
    });
  }
  one("form.list")?.addEventListener("submit", (event) => {
    event.preventDefault();
    location.href = `/compare?ids=${[...selected].join(",")}`;
  });
  say();
}

// Moments in the zone of whoever reads, with UTC beside them.
function readyTimes(within) {
  const format = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
  for (const time of all("time[datetime]", within)) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const utc = `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    const here = format.format(moment);
    if ("exactly" in time.dataset) time.textContent = here;
    time.title = "exactly" in time.dataset ? utc : `${here}\n${utc}`;
  }
}

function ready(within) {
  readyCopying(within);
  readyTimes(within);
  readySelection(within);
  readySearch(within);
}

// Replace a part of the page by the same part of another address of it.
let asked = 0;

async function replace(address) {
  const mine = ++asked;
  const answer = await fetch(address, { headers: { Accept: "text/html" } });
  const text = await answer.text();
  if (mine !== asked || !answer.ok) return false;
  const fresh = one("[data-replaced]", new DOMParser().parseFromString(text, "text/html"));
  const old = one("[data-replaced]");
  if (!fresh || !old) return false;
  const here = one("tr.here", old)?.dataset.id;
  old.replaceWith(document.adoptNode(fresh));
  ready(fresh);
  if (here) one(`tr[data-id="${CSS.escape(here)}"]`, fresh)?.classList.add("here");
  return true;
}

function readyLiveFilter() {
  const field = one("[data-live]");
  if (!field) return;
  let waiting;
  const show = async () => {
    const address = new URL(location.href);
    address.searchParams.delete("before");
    for (const input of all("input[name]", field.form)) {
      input.value ? address.searchParams.set(input.name, input.value) : address.searchParams.delete(input.name);
    }
    const shown = await replace(address);
    if (shown) history.replaceState(null, "", address);
    one("#fault") ? field.setAttribute("aria-invalid", "true") : field.removeAttribute("aria-invalid");
  };
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 250);
  });
}

// Completion of the word at the end of a filter, or of a list of columns.
function readyCompletion(field) {
  const list = document.createElement("ul");
  list.className = "options";
  list.id = `options-${field.id}`;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Completions");
  list.hidden = true;
  field.after(list);
  field.setAttribute("role", "combobox");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");
  field.setAttribute("aria-autocomplete", "list");
  let place = -1;
  let word = "";
  const close = () => {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    place = -1;
  };
  const mark = () =>
    all("li", list).forEach((item, index) => item.setAttribute("aria-selected", String(index === place)));
  const take = (item) => {
    field.value = field.value.slice(0, field.value.length - word.length) + item.textContent;
    close();
    field.focus();
    field.dispatchEvent(new Event("input"));
  };
  const ask = async () => {
    const text = field.value;
    if (!text.trim() || field.selectionStart !== text.length) return close();
    const asked = new URLSearchParams({ text, of: field.dataset.complete });
    const answer = await fetch(`/completions?${asked}`);
    if (!answer.ok || field.value !== text) return;
    const found = await answer.json();
    word = found.word;
    list.replaceChildren(
      ...found.options.map((option) => {
        const item = document.createElement("li");
        item.setAttribute("role", "option");
        item.textContent = option;
        item.addEventListener("mousedown", (event) => {
          event.preventDefault();
          take(item);
        });
        return item;
      }),
    );
    place = -1;
    mark();
    list.style.left = `${field.offsetLeft}px`;
    list.style.top = `${field.offsetTop + field.offsetHeight}px`;
    list.hidden = !found.options.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
  };
  let waiting;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, 120);
  });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const items = all("li", list);
    if (list.hidden || !items.length) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      place = (place + (event.key === "ArrowDown" ? 1 : -1) + items.length) % items.length;
      mark();
    } else if ((event.key === "Enter" || event.key === "Tab") && place >= 0) {
      event.preventDefault();
      take(items[place]);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      close();
    }
  });
}

// What somebody chose to see comes back with the next visit.
function readyMemory() {
  for (const field of all("[data-remember]")) {
    const name = field.dataset.remember;
    const kept = localStorage.getItem(name);
    const address = new URL(location.href);
    if (kept && !field.value && !address.searchParams.has(name)) {
      address.searchParams.set(name, kept);
      location.replace(address);
    }
    field.form.addEventListener("submit", () => localStorage.setItem(name, field.value.trim()));
  }
}

// Search among the keys of a page.
function readySearch(within) {
  const field = one("[data-search]", within);
  if (!field || field.dataset.ready) return;
  field.dataset.ready = "yes";
  field.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const group of all("[data-group]")) {
      let count = 0;
      for (const item of all("[data-item]", group)) {
        const fits = !wanted || item.textContent.toLowerCase().includes(wanted);
        item.hidden = !fits;
        count += fits;
      }
      group.hidden = Boolean(wanted) && count === 0;
      if (wanted && group.tagName === "DETAILS" && count) group.open = true;
    }
  });
}

function readyRefresh() {
  setInterval(() => {
    const part = one("[data-refresh]");
    if (part && !document.hidden && !all("dialog[open]").length) replace(location.href);
  }, 5000);
}

function readyKeyboard() {
  const move = (by) => {
    const rows = all("[data-row]").filter((row) => !row.hidden);
    if (!rows.length) return;
    const here = rows.findIndex((row) => row.classList.contains("here"));
    const next = rows[Math.min(rows.length - 1, Math.max(0, here + by))];
    rows[here]?.classList.remove("here");
    next.classList.add("here");
    next.scrollIntoView({ block: "nearest" });
    one("a[data-open]", next)?.focus({ preventScroll: true });
  };
  const keys = {
    "/": () => (one("[data-search]") ?? one("#filter"))?.focus(),
    j: () => move(1),
    k: () => move(-1),
    x: () => one("tr.here input[type=checkbox]")?.click(),
    c: () => one("[data-compare]:not(:disabled)")?.click(),
    "?": () => one("#help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && isTyping) return event.target.blur();
    if (isTyping || one("dialog[open]") || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
}

readyTheme();
readyHelp();
ready(document);
readyLiveFilter();
all("[data-complete]").forEach(readyCompletion);
readyMemory();
readyRefresh();
readyKeyboard();
