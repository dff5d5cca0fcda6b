// Several seeds from one click: how many, which videos came from the same click, and these side by side.
(() => {
  const { say, make, icon, content, whenThere } = window.framewake;
  const KEY = "framewake-seeds"; // in the browser: lists of ids, the newest first
  const MOST = 8;
  const MOST_KEPT = 50;
  const EARLY = 0.4; // share of the steps behind which drafts pause: by then it shows what moves where
  let choice = null;
  let early = null;
  let groups = read();

  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(found) ? found.filter(Array.isArray) : [];
    } catch {
      return [];
    }
  }

  function keep(ids) {
    groups = [ids, ...groups.filter((each) => each[0] !== ids[0])].slice(0, MOST_KEPT);
    try {
      localStorage.setItem(KEY, JSON.stringify(groups));
    } catch {
      // Full, or forbidden: known until the page is loaded again.
    }
  }

  function forget() {
    groups = [];
    try {
      localStorage.removeItem(KEY);
    } catch {
      // Forbidden.
    }
  }

  // The ids that came from the same click as this one.
  const beside = (id) => groups.find((each) => each.includes(id)) ?? [id];

  // The fields of every video: a seed that was named is the first of as many that follow each other.
  function variants(fields) {
    const count = Number(choice?.value ?? 1);
    const steps = fields.num_inference_steps;
    const draft = count > 1 && early.checked && steps > 1 ? { draft: Math.max(1, Math.round(steps * EARLY)) } : {};
    return Array.from({ length: count }, (_, index) => {
      const isOpen = fields.seed === undefined || fields.seed === -1;
      return { ...fields, ...draft, ...(isOpen ? {} : { seed: BigInt(fields.seed) + BigInt(index) }) };
    });
  }

  // There is something that moves: the clip, or the draft of one that is paused.
  const isMoving = (video) => video.status === "completed" || (video.status === "paused" && video.draft !== null);

  // A newer draft has another address, so that no older one is shown.
  function source(video) {
    return video.status === "completed" ? content(video, "video") : `${content(video, "draft")}&step=${video.draft}`;
  }

  function player(video) {
    const poster = video.status === "completed" ? { poster: content(video, "thumbnail") } : {};
    return { src: source(video), ...poster, loop: true, muted: true, autoplay: true, playsInline: true };
  }

  function cell(video, key, choose) {
    const properties = { type: "button", className: "fw-tile", onclick: () => choose(video.id) };
    const data = { "data-id": video.id, "data-status": video.status, "data-key": key };
    const picture = make("span", { className: "fw-thumb" }, isMoving(video) ? make("video", player(video)) : icon(video.status));
    if (video.status !== "completed") {
      picture.append(make("span", { className: `fw-chip fw-${video.status}` }, say(`state.${video.status}`)));
    }
    return make("button", { ...properties, ...data }, picture, make("small", {}, say("seeds.seed", { seed: video.seed })));
  }

  function show(place, videos, focus, choose) {
    place.hidden = videos.length < 2;
    const there = new Map([...place.children].map((each) => [each.dataset.key, each]));
    const wanted = (place.hidden ? [] : videos).map((video) => {
      const key = `${video.id} ${video.status} ${video.draft}`;
      return there.get(key) ?? cell(video, key, choose);
    });
    if (wanted.length !== place.children.length || wanted.some((each, index) => each !== place.children[index])) {
      place.replaceChildren(...wanted);
    }
    for (const each of place.children) each.setAttribute("aria-current", String(each.dataset.id === focus));
  }

  window.framewake.seeds = { variants, keep, forget, beside, show, isMoving, source, player };

  whenThere("#fw-early", (place) => {
    early = make("input", { type: "checkbox", id: "fw-drafts" });
    place.replaceChildren(make("label", { hidden: (choice?.value ?? "1") === "1" }, early, say("seeds.drafts")));
  });
  whenThere("#fw-many", (place) => {
    const words = (count) => (count === 1 ? say("seeds.one") : say("seeds.many", { count }));
    const options = Array.from({ length: MOST }, (_, index) => make("option", { value: index + 1 }, words(index + 1)));
    choice = make("select", { id: "fw-count", "aria-label": say("seeds.label"), title: say("seeds.label") }, ...options);
    place.replaceChildren(choice);
    choice.addEventListener("change", () => (early.parentElement.hidden = choice.value === "1"));
  });
})();
