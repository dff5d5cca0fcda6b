// What stands in the form, kept in the browser: it survives a reload, the way back and the other language. The settings
// are in the tab's own storage, the picture in the browser's database; where a browser gives neither, nothing is kept.
(() => {
  const { given, say, whenThere } = window.framewake;
  const FORM = "framewake-form";
  const TAB = "framewake-tab";
  const KEPT_MS = 24 * 3600 * 1000; // pictures of tabs that were closed
  let isRestored = false; // until then, what Gradio shows is not what a person has chosen

  function read(key) {
    try {
      return sessionStorage.getItem(key);
    } catch {
      return null;
    }
  }

  function write(key, text) {
    try {
      if (text === null) sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, text);
    } catch {
      // Full, or forbidden.
    }
  }

  function tab() {
    const known = read(TAB) ?? String(Math.random()).slice(2);
    write(TAB, known);
    return known;
  }

  // --- settings

  function keep(values) {
    if (isRestored) write(FORM, JSON.stringify({ names: given.names, values }));
    window.framewake.changed();
    window.framewake.advice.soon(values[given.names.indexOf("prompt")]);
  }

  function kept() {
    try {
      const found = JSON.parse(read(FORM));
      return JSON.stringify(found.names) === JSON.stringify(given.names) ? found.values : null;
    } catch {
      return null;
    }
  }

  // The values of the form, LoRA files, weights and the box around these: those that were kept, or those that stand
  // there.
  function restored(values) {
    isRestored = true;
    const found = kept();
    if (found?.length !== values.length) return [...values, { __type__: "update" }];
    const count = given.names.length;
    const [loras, , ...weights] = found.slice(count);
    const form = found.slice(0, count).map((value, index) => {
      const most = given.most[given.names[index]];
      return most && value > most ? { __type__: "update", value, maximum: value } : value;
    });
    const shown = weights.map((value, index) => {
      const name = loras?.[index];
      return name ? { __type__: "update", visible: true, label: say("lora.weight", { name }), value } : value;
    });
    const box = { __type__: "update", ...(loras?.length ? { open: true } : {}) };
    return [...form, loras, JSON.stringify(loras ?? []), ...shown, box];
  }

  // --- the picture

  function pictures(mode, work) {
    return new Promise((resolve) => {
      const give = (value) => resolve(value ?? null);
      try {
        const opening = indexedDB.open("framewake", 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore("pictures");
        opening.onerror = opening.onblocked = () => give(null);
        opening.onsuccess = () => {
          try {
            const transaction = opening.result.transaction("pictures", mode);
            const request = work(transaction.objectStore("pictures"));
            transaction.oncomplete = () => give(request?.result);
            transaction.onerror = transaction.onabort = () => give(null); // full, for one
          } catch {
            give(null);
          }
        };
      } catch {
        give(null);
      }
    });
  }

  function keepPicture(file) {
    const entry = { file, name: file.name ?? "picture", type: file.type, at: Date.now() };
    return pictures("readwrite", (store) => store.put(entry, tab()));
  }

  async function picture() {
    const found = await pictures("readonly", (store) => store.get(tab()));
    return found?.file ? new File([found.file], found.name, { type: found.type }) : null;
  }

  function forgetOld() {
    pictures("readwrite", (store) => {
      store.openCursor().onsuccess = (event) => {
        const cursor = event.target.result;
        if (!cursor) return;
        if (cursor.key !== tab() && !(Date.now() - cursor.value.at < KEPT_MS)) cursor.delete();
        cursor.continue();
      };
    });
  }

  function forget() {
    isRestored = false;
    write(FORM, null);
    window.framewake.seeds.forget();
    const key = tab();
    const gone = pictures("readwrite", (store) => store.delete(key));
    write(TAB, null);
    return gone;
  }

  window.framewake.kept = { keep, restored, keepPicture, picture };
  forgetOld();
  // Who logs out leaves nothing behind.
  whenThere(".fw-header a[href$='/logout']", (link) => {
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      await Promise.race([forget(), new Promise((resolve) => setTimeout(resolve, 1000))]);
      location.assign(link.href);
    });
  });
})();
