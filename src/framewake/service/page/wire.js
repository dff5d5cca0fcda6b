// Calls of Gradio's handlers. What goes wrong with one is told here, in the reader's language, and Gradio never learns
// of it: it would show a message of its own that stays, and call nothing any more until the page is loaded again.
(() => {
  const { given, say, translated } = window.framewake;
  const PATIENCE = 30_000;
  const HANDLER = "/gradio_api/run/predict";
  const ASKED = ["click", "input"]; // events that a person has brought about on purpose, and waits for
  const real = window.fetch.bind(window);

  const dependency = (number) => window.gradio_config?.dependencies?.find((each) => each.id === number);

  // An answer that changes nothing.
  function nothing(number) {
    const data = (dependency(number)?.outputs ?? []).map(() => ({ __type__: "update" }));
    const body = { data, is_generating: false, duration: 0, average_duration: 0 };
    return new Response(JSON.stringify(body), { headers: { "content-type": "application/json" } });
  }

  async function call(input, options) {
    const number = JSON.parse(options.body).fn_index;
    let text = say("error.network");
    try {
      const answer = await real(input, { ...options, signal: AbortSignal.timeout(PATIENCE) });
      if (answer.ok) {
        const body = await answer.text(); // a connection may break in the middle
        return new Response(body, { status: answer.status, headers: answer.headers });
      }
      if (answer.status === 401) {
        location.assign(`${given.root}/login`);
        return nothing(number);
      }
      const told = (await answer.json().catch(() => null))?.error?.message;
      if (told) text = translated(told);
    } catch {
      window.framewake.videos?.refresh(); // which says so until the server is back
    }
    const isAsked = dependency(number)?.targets?.some(([, event]) => ASKED.includes(event));
    if (isAsked) window.framewake.message(text);
    return nothing(number);
  }

  window.fetch = (input, options) => {
    const address = String(input?.url ?? input);
    return address.includes(HANDLER) && typeof options?.body === "string" ? call(input, options) : real(input, options);
  };
})();
