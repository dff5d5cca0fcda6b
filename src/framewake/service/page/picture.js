// The picture: dropped, pasted or chosen; kept here until the video is handed in, shown with the crop outlined.
(() => {
  const { given, say, make, icon, ask, tell, whenThere } = window.framewake;
  const CENTRE = "0.5,0.5";
  const FIT = "fit"; // nothing is cut away
  const KEYS = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05] };
  let place, file, address, crop, size, notice;
  let moved = null; // where the crop was moved to, until an answer is about that

  function show() {
    const input = make("input", {
      type: "file",
      id: "fw-file",
      accept: "image/*,video/mp4,.mp4",
      className: "fw-unseen",
      onchange: () => input.files[0] && choose(input.files[0]),
    });
    if (!file) {
      place.replaceChildren(
        make(
          "label",
          { className: "fw-drop", htmlFor: "fw-file" },
          input,
          icon("add"),
          make("strong", {}, say("picture.drop")),
          make("small", {}, say("picture.restore")),
        ),
      );
      return;
    }
    const image = make("img", { src: address, alt: say("picture.alt"), id: "fw-image" });
    const outline = make("div", { className: "fw-crop", hidden: true, role: "slider", "aria-label": say("picture.place") });
    outline.addEventListener("pointerdown", drag);
    outline.addEventListener("keydown", (event) => {
      const step = KEYS[event.key];
      if (!step || !isMovable()) return;
      event.preventDefault();
      const [across, down] = crop.place.split(",").map(Number);
      move(across + step[0], down + step[1]);
      tell("fw-crop", moved);
    });
    const fits = make("input", { type: "checkbox", id: "fw-fit" });
    fits.addEventListener("change", () => {
      moved = fits.checked ? FIT : CENTRE;
      tell("fw-crop", moved);
    });
    place.replaceChildren(
      make(
        "figure",
        { className: "fw-figure" },
        make("div", { className: "fw-frame" }, image, outline),
        make(
          "figcaption",
          {},
          make("span", { id: "fw-caption" }),
          make("label", { className: "fw-fit", hidden: true }, fits, say("picture.fit")),
          make("label", { className: "fw-button", htmlFor: "fw-file" }, input, say("picture.change")),
        ),
      ),
    );
    draw();
  }

  function draw() {
    const outline = place?.querySelector(".fw-crop");
    if (!outline || !crop) return;
    for (const side of ["top", "left", "width", "height"]) outline.style[side] = `${crop[side] * 100}%`;
    const isFit = crop.place === FIT;
    outline.hidden = isFit;
    place.querySelector("#fw-fit").checked = isFit;
    const isWhole = crop.width > 0.999 && crop.height > 0.999;
    const free = isMovable();
    place.querySelector(".fw-fit").hidden = !free && !isFit;
    const [across, down] = crop.place.split(",").map(Number);
    const isUpright = crop.width > crop.height;
    outline.classList.toggle("fw-movable", free);
    outline.tabIndex = free ? 0 : -1;
    outline.setAttribute("aria-valuenow", Math.round(100 * (isUpright ? down : across)));
    outline.setAttribute("aria-orientation", isUpright ? "vertical" : "horizontal");
    outline.setAttribute("aria-disabled", String(!free));
    const sizes = { width: crop.width_px, height: crop.height_px };
    const told = say(isFit ? "picture.fits" : isWhole ? "picture.whole" : "picture.crop", sizes);
    place.querySelector("#fw-caption").textContent = free ? `${told} ${say("picture.move")}` : told;
  }

  const isMovable = () => Math.min(crop.width, crop.height) < 0.99;

  function move(...wanted) {
    const [across, down] = wanted.map((share) => Math.min(Math.max(Number(share.toFixed(3)), 0), 1));
    moved = `${across},${down}`;
    crop = { ...crop, place: moved, left: across * (1 - crop.width), top: down * (1 - crop.height) };
    draw();
  }

  function drag(event) {
    if (!isMovable()) return;
    const outline = event.currentTarget;
    const { width, height } = outline.parentElement.getBoundingClientRect();
    const [start, begun] = [{ x: event.clientX, y: event.clientY }, crop];
    const share = (at, room) => (room > 0.005 ? at / room : 0.5);
    const go = (at) => {
      const [x, y] = [(at.clientX - start.x) / width, (at.clientY - start.y) / height];
      move(share(begun.left + x, 1 - begun.width), share(begun.top + y, 1 - begun.height));
    };
    const end = () => {
      outline.removeEventListener("pointermove", go);
      if (moved) tell("fw-crop", moved);
    };
    outline.setPointerCapture(event.pointerId);
    outline.addEventListener("pointermove", go);
    for (const kind of ["pointerup", "pointercancel"]) outline.addEventListener(kind, end, { once: true });
  }

  // A page that is still being built may lose what it is told, so it is told again until an answer is there.
  function askForCrop(chosen, wait) {
    if (file !== chosen || crop) return;
    tell("fw-size", size);
    if (wait > 1000) document.querySelector("#fw-estimate-again")?.click();
    if (wait < 60_000) setTimeout(askForCrop, wait, chosen, 2 * wait);
  }

  // Beside the picture, where people look.
  function tellHere(text) {
    notice.textContent = text;
    if (text) notice.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  // A picture that somebody has chosen is cropped at its centre; one that comes back, where it was.
  function choose(chosen) {
    moved = null;
    tell("fw-crop", CENTRE);
    return take(chosen);
  }

  async function take(chosen) {
    window.framewake.message("");
    tellHere("");
    if (chosen.size > given.mostBytes) {
      tellHere(say("picture.large", { most: Math.floor(given.mostBytes / 1e6) }));
      return;
    }
    if (chosen.type === "video/mp4" || chosen.name?.toLowerCase().endsWith(".mp4")) {
      await restore(chosen);
      return;
    }
    const found = URL.createObjectURL(chosen);
    const image = new Image();
    image.src = found;
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(found);
      tellHere(say("picture.broken"));
      return;
    }
    if (address) URL.revokeObjectURL(address);
    const foundSize = `${image.naturalWidth}x${image.naturalHeight}`;
    if (foundSize !== size) crop = null; // for an equal size, no new one will come
    [file, address, size] = [chosen, found, foundSize];
    show();
    askForCrop(chosen, 1000);
    window.framewake.kept.keepPicture(chosen);
    window.framewake.advice.look();
  }

  async function restore(clip) {
    try {
      const answer = await ask("/page/settings", { method: "POST", body: clip });
      await window.framewake.reuse(await answer.json());
    } catch (error) {
      tellHere(error.message);
    }
  }

  window.framewake.picture = {
    file: () => file,
    isSettled: () => crop && !moved,
    choose,
    take,
    tell: tellHere,
    outline(text) {
      const found = text ? JSON.parse(text) : null;
      if (found && crop && moved && found.place !== moved) return; // of an earlier place, or another is still under way
      [crop, moved] = [found, null];
      draw();
    },
  };

  whenThere("#fw-picture", (found) => {
    place = make("div");
    notice = make("p", { id: "fw-picture-message", className: "fw-refused", role: "alert" });
    found.replaceChildren(place, notice);
    show();
    window.framewake.kept.picture().then((kept) => kept && !file && take(kept));
    const over = (is) => (event) => {
      event.preventDefault();
      place.classList.toggle("fw-over", is);
    };
    place.addEventListener("dragover", over(true));
    place.addEventListener("dragleave", over(false));
    place.addEventListener("drop", (event) => {
      over(false)(event);
      const dropped = event.dataTransfer.files[0];
      if (dropped) choose(dropped);
    });
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (pasted && place) choose(pasted);
  });
})();
