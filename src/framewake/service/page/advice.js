// What a person should know before the click: what the command line says of such a picture and prompt, and frames.
(() => {
  const { given, say, make, ask, translated, whenThere } = window.framewake;
  const QUIET_MS = 700; // after the last key
  const SMALL_BYTES = 500_000; // a larger picture is sent whole once, and then as a small copy
  const SMALL_PX = 256;
  let place, timer;
  let words = "";
  let asked = 0;
  let ofPicture = []; // notes on the file itself, and the file
  let whole = null;

  async function copyOf(file) {
    if (file.size <= SMALL_BYTES) return file;
    const image = await createImageBitmap(file);
    const factor = Math.min(1, SMALL_PX / Math.max(image.width, image.height));
    const canvas = make("canvas", {
      width: Math.max(1, Math.round(image.width * factor)),
      height: Math.max(1, Math.round(image.height * factor)),
    });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  function show(texts) {
    place.replaceChildren(...texts.map((text) => make("li", {}, translated(text))));
  }

  async function look() {
    if (!place) return;
    const number = ++asked;
    const file = window.framewake.picture.file() ?? null;
    const isNew = file !== whole;
    const body = new FormData();
    body.append("prompt", words);
    try {
      if (file) body.append("input_reference", isNew ? file : await copyOf(file), "picture");
      const found = await (await ask("/page/notes", { method: "POST", body })).json();
      if (number !== asked) return;
      if (isNew) [whole, ofPicture] = [file, found.picture];
      show([...(file ? ofPicture : []), ...found.request]);
    } catch (error) {
      if (number !== asked) return;
      show([]);
      // A file that cannot be used is said now and not at the click; a server that is away says so elsewhere.
      if (error.status === 422 && isNew && file) window.framewake.picture.tell(error.message);
    }
  }

  function soon(prompt) {
    if (prompt === words) return;
    words = prompt ?? "";
    clearTimeout(timer);
    timer = setTimeout(look, QUIET_MS);
  }

  whenThere("#fw-notes", (found) => {
    place = found;
  });

  // Frames that cannot be made become the nearest ones, which is said once, where they were typed.
  whenThere("#fw-frames input[type=number]", (box) => {
    const note = make("p", { id: "fw-frames-note", className: "fw-note", role: "status" });
    box.closest("#fw-frames").append(note);
    let typed = null; // what a person has typed, before anybody corrects it
    let isOurs = false;
    let isPressed = false;
    document.addEventListener("pointerdown", () => (isPressed = true), true);
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (isPressed = false), true);
    const hear = (event) => {
      if (event.target !== box || isOurs) return;
      typed = box.value;
      note.textContent = "";
    };
    const snap = () => {
      if (typed === null) return;
      const number = typed.trim() === "" ? given.usual.frames : Number(typed);
      const most = Number(document.querySelector("#fw-frames input[type=range]")?.max || given.most.frames);
      const nearest = Math.min(Math.max(Math.round((number - 1) / 4) * 4 + 1, 1), most);
      const words = say("frames.snapped", { asked: number, made: nearest, most });
      // The box is left because something else is pressed: a note that came now would move that away from below the
      // pointer, and nothing would be clicked.
      const tellLater = () => setTimeout(() => (note.textContent = words));
      if (nearest !== number) isPressed ? document.addEventListener("pointerup", tellLater, { once: true }) : tellLater();
      typed = null;
      isOurs = true;
      Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, String(nearest));
      box.dispatchEvent(new Event("input", { bubbles: true }));
      isOurs = false;
    };
    document.addEventListener("input", hear, true);
    // Before Gradio's own listener, which sits on the box itself.
    document.addEventListener("focusout", (event) => event.target === box && snap(), true);
    box.addEventListener("keydown", (event) => event.key === "Enter" && snap());
  });

  window.framewake.advice = { look, soon };
})();
