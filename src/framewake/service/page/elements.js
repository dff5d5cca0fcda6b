// What the other scripts share: texts, elements, requests. People's words become text nodes, never markup.
window.framewake = (() => {
  const given = window.framewakeSettings;
  const tag = { en: "en", zh: "zh-CN" }[given.language];

  function say(key, values = {}) {
    return (given.texts[key] ?? key).replace(/\$(\w+)/g, (whole, name) => values[name] ?? whole);
  }

  // What the server says, in the language of the page; the patterns are those of told.py.
  function translated(message) {
    for (const [pattern, text] of given.told) {
      const found = new RegExp(`^(?:${pattern})$`, "s").exec(message);
      if (!found) continue;
      return text.replace(/\{(?:(\w+):)?(\d)\}/g, (_, kind, number) => {
        const value = found[Number(number)];
        if (!kind) return value;
        return kind === "told" ? translated(value) : (given.texts[`${kind}.${value}`] ?? value);
      });
    }
    return message;
  }

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // Drawn, as fonts lack signs.
  const SIGNS = {
    add: "M12 4v16M4 12h16",
    play: "M8 5v14l11-7z",
    queued: "M12 7v5l3 3M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
    in_progress: "M8 5v14l11-7z",
    paused: "M9 6v12M15 6v12",
    failed: "M12 6v8M12 17.5v.5",
    cancelled: "M6 6l12 12M18 6L6 18",
  };

  function icon(name) {
    const space = "http://www.w3.org/2000/svg";
    const [drawing, path] = ["svg", "path"].map((kind) => document.createElementNS(space, kind));
    for (const [key, value] of Object.entries({ class: "fw-icon", viewBox: "0 0 24 24", "aria-hidden": "true" })) {
      drawing.setAttribute(key, value);
    }
    path.setAttribute("d", SIGNS[name]);
    drawing.append(path);
    return drawing;
  }

  const content = (video, variant) => `${given.root}/v1/videos/${video.id}/content?variant=${variant}`;

  function lasting(seconds) {
    if (seconds < 90) return say("time.seconds", { count: Math.max(1, Math.round(seconds)) });
    const minutes = Math.round(seconds / 60);
    if (minutes < 90) return say("time.minutes", { count: minutes });
    return say("time.hours", { count: Math.floor(minutes / 60), minutes: minutes % 60 });
  }

  function ago(moment) {
    const minutes = Math.floor((Date.now() / 1000 - moment) / 60);
    if (minutes < 1) return say("ago.now");
    if (minutes < 60) return say("ago.minutes", { count: minutes });
    if (minutes < 48 * 60) return say("ago.hours", { count: Math.floor(minutes / 60) });
    return say("ago.days", { count: Math.floor(minutes / 1440) });
  }

  // An answer of the API, or an Error whose message is for people.
  async function ask(path, options = {}) {
    let answer;
    try {
      answer = await fetch(given.root + path, { credentials: "same-origin", ...options });
    } catch {
      throw Object.assign(new Error(say("error.network")), { isNetwork: true });
    }
    if (answer.status === 401) {
      location.assign(`${given.root}/login`);
      throw new Error(say("login.wrong"));
    }
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => null);
    const told = body?.error?.message;
    throw Object.assign(new Error(told ? translated(told) : say("error.network")), { status: answer.status });
  }

  // Seeds may be larger than a browser's numbers: they stay text.
  const parse = (text) => JSON.parse(text.replace(/"seed": ?(\d{16,})/g, '"seed":"$1"'));

  // A hidden box of Gradio's: what is written there reaches the handlers.
  function tell(id, text) {
    const box = document.querySelector(`#${id} textarea, #${id} input`);
    if (!box) return;
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), "value").set.call(box, text);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // Gradio puts its elements there when it likes: each is met once, when it has come.
  function whenThere(selector, meet) {
    let met = null;
    const look = () => {
      const found = document.querySelector(selector);
      if (found && found !== met) {
        met = found;
        meet(found);
      }
    };
    new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
    look();
  }

  // Gradio writes the browser's language there, whenever it likes.
  const keepTag = () => document.documentElement.lang === tag || (document.documentElement.lang = tag);
  new MutationObserver(keepTag).observe(document.documentElement, { attributeFilter: ["lang"] });
  keepTag();

  return { given, say, translated, make, icon, content, lasting, ago, ask, parse, tell, whenThere };
})();
