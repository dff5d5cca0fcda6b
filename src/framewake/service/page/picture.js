// The picture: dropped, pasted or chosen; kept here until the video is handed in, shown with the crop outlined.
(() => {
  const { given, say, make, icon, ask, tell, whenThere } = window.framewake;
  let place, file, address, crop, size, notice;

  function show() {
    const choose = make("input", {
      type: "file",
      id: "fw-file",
      accept: "image/*,video/mp4,.mp4",
      className: "fw-unseen",
      onchange: () => choose.files[0] && take(choose.files[0]),
    });
    if (!file) {
      place.replaceChildren(
        make(
          "label",
          { className: "fw-drop", htmlFor: "fw-file" },
          choose,
          icon("add"),
          make("strong", {}, say("picture.drop")),
          make("small", {}, say("picture.restore")),
        ),
      );
      return;
    }
    const image = make("img", { src: address, alt: say("picture.alt"), id: "fw-image" });
    const outline = make("div", { className: "fw-crop", hidden: true });
    place.replaceChildren(
      make(
        "figure",
        { className: "fw-figure" },
        make("div", { className: "fw-frame" }, image, outline),
        make(
          "figcaption",
          {},
          make("span", { id: "fw-caption" }),
          make("label", { className: "fw-button", htmlFor: "fw-file" }, choose, say("picture.change")),
        ),
      ),
    );
    draw();
  }

  function draw() {
    const outline = place?.querySelector(".fw-crop");
    if (!outline || !crop) return;
    for (const side of ["top", "left", "width", "height"]) outline.style[side] = `${crop[side] * 100}%`;
    outline.hidden = false;
    const isWhole = crop.width > 0.999 && crop.height > 0.999;
    const sizes = { width: crop.width_px, height: crop.height_px };
    place.querySelector("#fw-caption").textContent = say(isWhole ? "picture.whole" : "picture.crop", sizes);
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
    take,
    tell: tellHere,
    outline(text) {
      crop = text ? JSON.parse(text) : null;
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
      if (dropped) take(dropped);
    });
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (pasted && place) take(pasted);
  });
})();
