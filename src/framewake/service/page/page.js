// Handing in, and filling the form again.
(() => {
  const { given, say, ask, parse, tell } = window.framewake;
  const done = new Set(); // tickets and notes come again when Gradio repeats an event
  let isSending = false;
  let isMissingPicture = false;

  let told = ""; // the values of the form that a refusal is about

  function message(text, kind = "fw-refused") {
    const place = document.querySelector("#fw-message");
    if (!place) return;
    place.textContent = text;
    place.className = text ? kind : "";
    told = shown();
    if (text) place.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  // What is refused may be mended by any change of the form: the next click says what is left.
  const shown = () =>
    [...document.querySelectorAll(".fw-form :is(input, textarea)")].map((each) => `${each.value}${each.checked}`).join();

  function changed() {
    const place = document.querySelector("#fw-message.fw-refused");
    if (place && shown() !== told) message("");
  }

  // The server answers: what said that it does not is no longer so.
  function isBack() {
    for (const place of document.querySelectorAll("#fw-message, #fw-problem, #fw-picture-message")) {
      if (place.textContent.includes(say("error.network"))) place.textContent = "";
    }
  }

  function isNew(text) {
    const { number } = JSON.parse(text);
    if (done.has(number)) return false;
    done.add(number);
    return true;
  }

  async function send(text) {
    if (!text || !isNew(text) || isSending) return;
    const { fields, error } = parse(text);
    const picture = window.framewake.picture.file();
    if (error) return message(error);
    if (given.needsPicture && !picture) {
      window.framewake.picture.tell(say("make.no_picture"));
      return message(say("make.no_picture"));
    }
    if (!fields.prompt?.trim()) return message(say("make.no_prompt"));
    isSending = true;
    message(say("make.busy"), "fw-note");
    const made = [];
    try {
      for (const each of window.framewake.seeds.variants(fields)) {
        const answer = await ask("/v1/videos", { method: "POST", body: bodyOf(each, picture) });
        made.push(parse(await answer.text()));
      }
      message("");
    } catch (failure) {
      message(`${say("error.title")} ${failure.message}`);
    } finally {
      isSending = false;
    }
    if (made.length > 1) window.framewake.seeds.keep(made.map((video) => video.id));
    if (made.length) await window.framewake.videos.look(...made);
  }

  function bodyOf(fields, picture) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      body.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    }
    if (given.needsPicture) body.append("input_reference", picture, "picture");
    return body;
  }

  // Settings of an earlier video, and its picture where the server still has it.
  async function reuse({ settings, picture_of }) {
    isMissingPicture = given.needsPicture && !picture_of;
    if (picture_of && given.needsPicture) {
      const bytes = await (await ask(`/page/videos/${picture_of}/picture`)).blob();
      await window.framewake.picture.take(new File([bytes], "picture"));
    }
    tell("fw-restore", settings);
    requestAnimationFrame(() => document.querySelector("#fw-restore-go")?.click());
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !event.target.closest?.(".fw-form")) return;
    event.preventDefault();
    document.querySelector("#fw-make")?.click();
  });

  Object.assign(window.framewake, {
    message,
    changed,
    isBack,
    send,
    reuse,
    note(text) {
      if (!text || !isNew(text)) return;
      const note = JSON.parse(text);
      if (note.error) return message(note.error);
      const words = isMissingPicture ? `${note.text} ${say("restore.picture")}` : note.text;
      message(words, "fw-note");
      document.querySelector(".fw-form")?.scrollIntoView({ behavior: "smooth", block: "start" });
    },
  });
})();
