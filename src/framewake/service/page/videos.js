// Queue and history, as the API tells them: they live in the server's database, and outlive this page.
(() => {
  const { given, say, translated, make, icon, content, lasting, ago, ask, parse, seeds, whenThere } = window.framewake;
  const ACTIVE = ["queued", "in_progress", "paused"];
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

  // --- the large card

  function card(video) {
    const parts = [];
    if (video.status === "completed") {
      const player = make("video", {
        src: content(video, "video"),
        poster: content(video, "thumbnail"),
        controls: true,
        loop: true,
        muted: true,
        autoplay: true,
        playsInline: true,
        id: "fw-player",
        "aria-label": video.prompt,
      });
      const [width, height] = video.size.split("x");
      player.style.aspectRatio = `${width} / ${height}`;
      parts.push(player);
    } else if (video.status === "in_progress") {
      const preview = make("img", { className: "fw-preview", alt: say("video.preview"), hidden: true });
      const range = { "aria-label": say("stage.denoise"), "aria-valuemin": 0, "aria-valuemax": 100 };
      const bar = make("div", { className: "fw-bar", role: "progressbar", ...range });
      bar.append(make("div"));
      const [width, height] = video.size.split("x");
      const window_ = make("div", { className: "fw-window" }, preview, make("span", { className: "fw-pulse" }));
      window_.style.aspectRatio = `${width} / ${height}`;
      parts.push(window_, bar, make("p", { className: "fw-progress" }));
    } else {
      parts.push(make("p", { className: `fw-told fw-${video.status}`, role: "status" }));
    }
    parts.push(
      make("p", { className: "fw-said" }, video.prompt),
      make("ul", { className: "fw-notes" }),
      make(
        "p",
        { className: "fw-quiet" },
        say("video.details", {
          size: video.size.replace("x", " × "),
          frames: video.num_frames,
          steps: video.num_inference_steps,
          seed: video.seed,
        }) + loras(video),
      ),
      make("div", { className: "fw-actions" }, ...actions(video)),
    );
    return make("article", { className: "fw-card", "data-id": video.id, "data-status": video.status }, ...parts);
  }

  // The API's own spelling: a file with its ending, and its weight behind a colon.
  function loras(video) {
    const names = video.lora.map((text) => text.replace(/\.\w+:/, " ")).join(", ");
    return names && say("video.loras", { names });
  }

  function actions(video) {
    const button = (key, work, kind = "") =>
      make("button", { type: "button", className: `fw-button ${kind}`, "data-does": key, onclick: work }, say(key));
    const found = [];
    if (ACTIVE.includes(video.status)) found.push(button("video.cancel", () => stop(video), "fw-danger"));
    if (video.status === "completed") {
      const link = { href: content(video, "video"), download: "", className: "fw-button" };
      found.push(make("a", link, say("video.download")));
      for (const kind of ["GIF", "WebP"]) {
        const convert = (event) => saveAs(video, kind.toLowerCase(), event.currentTarget);
        const name = `${say("video.download")}: ${kind}`;
        found.push(make("button", { type: "button", className: "fw-button", "aria-label": name, onclick: convert }, kind));
      }
    }
    found.push(button("video.reuse", () => reuse(video)));
    if (["failed", "cancelled"].includes(video.status)) found.push(button("video.retry", () => retry(video)));
    if (!ACTIVE.includes(video.status)) found.push(button("video.remove", () => leave(video), "fw-danger"));
    return found;
  }

  // Made when it is asked for, which may take seconds.
  async function saveAs(video, kind, button) {
    tellProblem("");
    button.disabled = true;
    try {
      const answer = await ask(`/v1/videos/${video.id}/content?format=${kind}`);
      const said = answer.headers.get("content-disposition");
      const name = /filename\*=utf-8''([^;]+)/i.exec(said)?.[1] ?? /filename="([^"]+)"/.exec(said)[1];
      const href = URL.createObjectURL(await answer.blob());
      make("a", { href, download: decodeURIComponent(name) }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    } catch (error) {
      tellProblem(error.message);
    }
    button.disabled = false;
  }

  function fillCard(video) {
    const place = stage.firstElementChild;
    const notes = (video.notes ?? []).map((text) => make("li", {}, translated(text)));
    const there = place.querySelector(".fw-notes");
    if (there.children.length !== notes.length) there.replaceChildren(...notes);
    if (video.status === "in_progress") {
      const bar = place.querySelector(".fw-bar");
      bar.setAttribute("aria-valuenow", video.progress);
      bar.firstElementChild.style.width = `${Math.max(video.progress, 1)}%`;
      const words = [say(`stage.${video.stage ?? "start"}`)];
      if (video.stage === "denoise" && video.step > 0) {
        words[0] = say("video.step", { step: video.step, steps: video.num_inference_steps });
      }
      if (video.seconds_left) words.push(say("video.left", { time: lasting(video.seconds_left) }));
      place.querySelector(".fw-progress").textContent = words.join(" · ");
      return;
    }
    const told = place.querySelector(".fw-told");
    if (!told) return;
    if (video.status === "queued") {
      const position = video.queue_position ?? 1;
      const words = [position === 1 ? say("video.next") : say("video.position", { position })];
      if (video.seconds_left) words.push(say("video.takes", { time: lasting(video.seconds_left) }));
      told.textContent = words.join(" · ");
    } else if (video.status === "paused") {
      told.textContent = say("video.paused", { step: video.step, steps: video.num_inference_steps });
    } else if (video.status === "failed") {
      told.textContent = video.error ? translated(video.error.message) : say("state.failed");
    } else told.textContent = say("video.cancelled");
  }

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
        stage.replaceChildren(card(video));
      }
      fillCard(video);
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

  const stop = (video) => change(`/v1/videos/${video.id}`, "DELETE");
  const retry = (video) => change(`/v1/videos/${video.id}/retry`, "POST");

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

  window.framewake.videos = {
    refresh,
    look(...videos) {
      // What is just being made keeps the large view.
      if (known.get(focus)?.status !== "in_progress") focus = videos[0].id;
      videos.forEach((video, index) => accept({ ...video, order: index + 1 }));
      stage.scrollIntoView({ behavior: "smooth", block: window.innerWidth < 900 ? "start" : "nearest" });
      return refresh();
    },
  };

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
