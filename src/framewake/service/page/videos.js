// Queue and history, as the API tells them: they live in the server's database, and outlive this page.
(() => {
  const { given, say, make, icon, content, ago, ask, parse, seeds, card, whenThere } = window.framewake;
  const ACTIVE = ["queued", "in_progress"];
  const UNDO_MS = 8000;
  const known = new Map(); // id -> video
  const leaving = new Map(); // id -> timer: removed for the eye, and soon for good
  let focus = null; // the one that is shown large
  let shown = 12;
  let hasMore = false;
  let isLoaded = false;
  let stream = null; // events of the one in focus while it waits or is made
  let moment = 0; // counts questions and what was learnt, so that an old answer never hides newer knowledge
  let answered = 0; // the moment of the newest list that is shown
  let timer = null;
  let stage, strip, list, banner, more, problem, undo;

  function follow(video) {
    // A browser opens six connections to a server for all its tabs together: hidden ones must not keep any.
    const wanted = ACTIVE.includes(video?.status) && !document.hidden ? video.id : null;
    if ((stream?.id ?? null) === wanted) return;
    stream?.source.close();
    stream = null;
    if (!wanted) return;
    const source = new EventSource(`${given.root}/v1/videos/${wanted}/events`);
    const own = { id: wanted, source, isBroken: false };
    stream = own;
    source.addEventListener("open", () => (own.isBroken = false));
    source.addEventListener("error", () => {
      own.isBroken = true;
      // The browser connects again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED && stream === own) stream = null;
    });
    source.addEventListener("status", (event) => accept(parse(event.data)));
    source.addEventListener("preview", (event) => {
      const image = stage.querySelector(`[data-id="${wanted}"] .fw-preview`);
      if (!image) return;
      image.src = event.data;
      image.hidden = false;
    });
    source.addEventListener("end", (event) => {
      source.close();
      const video = parse(event.data);
      if (video.id) accept(video);
      refresh();
    });
  }

  // --- the small ones

  function tile(video) {
    const picture =
      video.status === "completed"
        ? make("img", { src: content(video, "thumbnail"), alt: "", loading: "lazy" })
        : video.status === "paused" && video.draft
          ? make("video", { src: seeds.source(video), muted: true, preload: "metadata" })
          : icon(video.status);
    const status = make("span", { className: `fw-chip fw-${video.status}` }, say(`state.${video.status}`));
    const work = () => choose(video.id);
    return make(
      "button",
      { type: "button", className: "fw-tile", "data-id": video.id, "data-status": video.status, onclick: work },
      make("span", { className: "fw-thumb" }, picture, status),
      make("span", { className: "fw-words" }, video.prompt),
      make("small", {}, ago(video.created_at)),
    );
  }

  function choose(id) {
    focus = id;
    render();
    stage.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  // Of several seeds, the first one stands in the list for all.
  function isFirst(video) {
    const first = seeds.beside(video.id).find((id) => known.has(id) && !leaving.has(id));
    return (first ?? video.id) === video.id;
  }

  // The newest preview of what is being made, in the list as in the large view.
  function showPreviews() {
    for (const each of document.querySelectorAll(".fw-tile[data-status='in_progress']")) {
      const video = known.get(each.dataset.id);
      if (!video?.step) continue;
      const image = make("img", { src: `${content(video, "preview")}&step=${video.step}`, alt: "" });
      image.addEventListener("load", () => each.querySelector(".fw-thumb > :first-child").replaceWith(image));
    }
  }

  function render() {
    const visible = [...known.values()].filter((video) => !leaving.has(video.id));
    const videos = visible.sort((a, b) => b.created_at - a.created_at || b.order - a.order);
    const isThere = (id) => known.has(id) && !leaving.has(id);
    if (!isThere(focus)) focus = seeds.beside(focus).find(isThere) ?? null;
    focus ??= (videos.find((video) => video.status === "in_progress") ?? videos[0])?.id ?? null;
    const video = known.get(focus);
    const current = stage.firstElementChild;
    if (!video) {
      if (isLoaded && !current?.classList.contains("fw-empty")) {
        stage.replaceChildren(
          make(
            "div",
            { className: "fw-empty" },
            icon("play"),
            make("strong", {}, say("videos.empty")),
            make("p", {}, say("videos.empty.hint")),
          ),
        );
      }
    } else {
      if (current?.dataset.id !== video.id || current?.dataset.status !== video.status) {
        stage.replaceChildren(card.make(video, does));
      }
      card.fill(stage.firstElementChild, video, does);
    }
    const ids = video ? seeds.beside(video.id) : [];
    seeds.show(strip, ids.filter(isThere).map((id) => known.get(id)), focus, choose);
    follow(video);
    const tiles = new Map([...list.children].map((each) => [`${each.dataset.id} ${each.dataset.status}`, each]));
    const wanted = videos.filter(isFirst).map((each) => tiles.get(`${each.id} ${each.status}`) ?? tile(each));
    if (wanted.length !== list.children.length || wanted.some((each, index) => each !== list.children[index])) {
      list.replaceChildren(...wanted);
    }
    for (const each of list.children) each.setAttribute("aria-current", String(ids.includes(each.dataset.id)));
    list.hidden = wanted.length < 2;
    more.hidden = !hasMore;
  }

  function accept(video) {
    known.set(video.id, { ...known.get(video.id), ...video, moment: ++moment });
    render();
  }

  // A list says what was so when it was asked for: what has been learnt since then stays, and the stream of the one
  // in focus is ahead of every list, so that progress never jumps back.
  function replaceAll(videos, asked) {
    const isNewer = (video) => video.moment > asked;
    const kept = [...known.values()].filter(isNewer);
    const ahead = stream && !stream.isBroken ? known.get(stream.id) : null;
    known.clear();
    videos.forEach((video, index) => {
      const newest = video.id === ahead?.id && ACTIVE.includes(video.status) ? ahead : video;
      known.set(video.id, { ...newest, order: -index, moment: asked });
    });
    for (const video of kept) known.set(video.id, { ...video, order: known.get(video.id)?.order ?? video.order });
  }

  // --- asking

  async function refresh() {
    const asked = ++moment;
    clearTimeout(timer);
    try {
      const [answer, health] = await Promise.all([
        ask(`/v1/videos?limit=${shown}`).then(async (found) => parse(await found.text())),
        fetch(`${given.root}/health`).then((found) => found.json()),
      ]);
      window.framewake.isBack();
      if (asked < answered) return; // a later question was answered sooner
      answered = asked;
      replaceAll(answer.data, asked);
      hasMore = answer.has_more && shown < 100;
      isLoaded = true;
      const isStuck = health.workers === 0 && answer.data.some((video) => ACTIVE.includes(video.status));
      // A worker that has come since can say what the video will take.
      if (health.workers && document.querySelector(".fw-unknown")) document.querySelector("#fw-estimate-again")?.click();
      tellBanner(isStuck ? say("videos.working") : "");
      render();
      showPreviews();
    } catch (error) {
      if (error.status === undefined) tellBanner(say("videos.lost"));
    }
    const isActive = [...known.values()].some((video) => ACTIVE.includes(video.status));
    clearTimeout(timer); // of another question that was answered meanwhile: one timer is enough
    timer = setTimeout(refresh, banner.hidden && !isActive ? 8000 : 1500);
  }

  function tellBanner(text) {
    banner.textContent = text;
    banner.hidden = !text;
  }

  // What went wrong with a video stands among the videos, until something else is done with one.
  function tellProblem(text) {
    problem.textContent = text;
    if (text) problem.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  async function change(path, method, done = () => {}) {
    tellProblem("");
    try {
      await ask(path, { method });
    } catch (error) {
      tellProblem(error.message);
    }
    done();
    await refresh();
    render(); // what was removed in vain is shown again, also while the server is away
  }

  const asked = (name) => (video) => change(`/v1/videos/${video.id}/${name}`, "POST");
  const stop = (video) => change(`/v1/videos/${video.id}`, "DELETE");

  // Removing can be undone for some seconds: only then is the server told.
  function leave(video) {
    const end = async () => {
      undo.querySelector(`[data-id="${video.id}"] button`).disabled = true;
      await change(`/v1/videos/${video.id}`, "DELETE", () => leaving.delete(video.id));
      showUndo();
    };
    leaving.set(video.id, { timer: setTimeout(end, UNDO_MS), video });
    render();
    showUndo();
    undo.querySelector("button")?.focus();
  }

  function showUndo() {
    const hadFocus = undo.contains(document.activeElement);
    undo.replaceChildren(
      ...[...leaving.values()].map(({ timer, video }) => {
        const bring = () => {
          clearTimeout(timer);
          leaving.delete(video.id);
          focus = video.id;
          render();
          showUndo();
        };
        return make(
          "p",
          { "data-id": video.id },
          make("span", {}, say("video.removed", { prompt: video.prompt })),
          make("button", { type: "button", className: "fw-button", "data-does": "video.undo", onclick: bring }, say("video.undo")),
        );
      }),
    );
    if (hadFocus && !undo.children.length) stage.querySelector("button, a, video")?.focus();
  }

  // Who goes on to another page has not asked for anything back.
  window.addEventListener("pagehide", () => {
    for (const [id, { timer }] of leaving) {
      clearTimeout(timer);
      fetch(`${given.root}/v1/videos/${id}`, { method: "DELETE", credentials: "same-origin", keepalive: true }).catch(() => {});
    }
  });

  async function reuse(video) {
    tellProblem("");
    try {
      await window.framewake.reuse(await (await ask(`/page/videos/${video.id}/settings`)).json());
    } catch (error) {
      tellProblem(error.message);
    }
  }

  const [pause, resume, retry] = ["pause", "resume", "retry"].map(asked);

  function look(...videos) {
    // What is just being made keeps the large view.
    if (known.get(focus)?.status !== "in_progress") focus = videos[0].id;
    videos.forEach((video, index) => accept({ ...video, order: index + 1 }));
    stage.scrollIntoView({ behavior: "smooth", block: window.innerWidth < 900 ? "start" : "nearest" });
    return refresh();
  }

  const does = { stop, pause, resume, retry, leave, reuse, look, tellProblem };
  window.framewake.videos = { refresh, look };

  whenThere("#fw-videos", (place) => {
    banner = make("p", { className: "fw-banner", role: "status", hidden: true });
    problem = make("p", { id: "fw-problem", className: "fw-refused", role: "alert" });
    undo = make("div", { className: "fw-undo", role: "status" });
    stage = make("div", { className: "fw-stage", "aria-live": "polite" });
    strip = make("div", { className: "fw-list fw-strip", role: "group", "aria-label": say("seeds.together"), hidden: true });
    list = make("div", { className: "fw-list", hidden: true });
    more = make("button", { type: "button", className: "fw-button fw-more", hidden: true }, say("videos.more"));
    more.addEventListener("click", () => {
      shown = Math.min(shown + 24, 100);
      refresh();
    });
    place.replaceChildren(make("h2", {}, say("videos.title")), banner, problem, undo, strip, stage, list, more);
    document.addEventListener("visibilitychange", () => !document.hidden && refresh());
    refresh();
  });
})();
