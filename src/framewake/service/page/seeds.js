// Several seeds from one click: how many, which videos came from the same click, and these side by side.
(() => {
  const { say, make, icon, content, whenThere } = window.framewake;
  const KEY = "framewake-seeds"; // in the browser: lists of ids, the newest first
  const MOST = 8;
  const MOST_KEPT = 50;
  let choice = null;
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
    return Array.from({ length: Number(choice?.value ?? 1) }, (_, index) =>
      fields.seed === undefined || fields.seed === "-1" ? fields : { ...fields, seed: BigInt(fields.seed) + BigInt(index) },
    );
  }

  function moving(video) {
    if (video.status !== "completed") return icon(video.status);
    const src = content(video, "video");
    return make("video", { src, poster: content(video, "thumbnail"), loop: true, muted: true, autoplay: true, playsInline: true });
  }

  function cell(video, key, choose) {
    const properties = { type: "button", className: "fw-tile", onclick: () => choose(video.id) };
    const data = { "data-id": video.id, "data-status": video.status, "data-key": key };
    const picture = make("span", { className: "fw-thumb" }, moving(video));
    if (video.status !== "completed") {
      picture.append(make("span", { className: `fw-chip fw-${video.status}` }, say(`state.${video.status}`)));
    }
    return make("button", { ...properties, ...data }, picture, make("small", {}, say("seeds.seed", { seed: video.seed })));
  }

  function show(place, videos, focus, choose) {
    place.hidden = videos.length < 2;
    const there = new Map([...place.children].map((each) => [each.dataset.key, each]));
    const wanted = (place.hidden ? [] : videos).map((video) => {
      const key = `${video.id} ${video.status}`;
      return there.get(key) ?? cell(video, key, choose);
    });
    if (wanted.length !== place.children.length || wanted.some((each, index) => each !== place.children[index])) {
      place.replaceChildren(...wanted);
    }
    for (const each of place.children) each.setAttribute("aria-current", String(each.dataset.id === focus));
  }

  window.framewake.seeds = { variants, keep, forget, beside, show };

  whenThere("#fw-many", (place) => {
    const words = (count) => (count === 1 ? say("seeds.one") : say("seeds.many", { count }));
    const options = Array.from({ length: MOST }, (_, index) => make("option", { value: index + 1 }, words(index + 1)));
    choice = make("select", { id: "fw-count", "aria-label": say("seeds.label"), title: say("seeds.label") }, ...options);
    place.replaceChildren(choice);
  });
})();
