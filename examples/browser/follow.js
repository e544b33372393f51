// Follow the log of a run across lost connections, restarts and expired tokens: each event once and in order.
//
//   mint()          returns the response with a stream token: a fetch() of the API's route, or of your own server's
//   after           seq of the last event that the page already has; 0 for none
//   onEvent(event)  {seq, ts, type, step, data}
//   onGap(gap)      {first, last}: these events are no longer stored
//   onEnd()         the run has ended, and the log is complete
//   onError(error)  given up: a problem of the API {type, title, status, detail}, or {detail} if this is not the API
//   onAway(reason)  the API does not respond; the request is repeated until it does, then onBack() is called
//
// Returns a function that stops following.
export function follow(api, run, { mint, after = 0, onEvent, onGap, onEnd, onError = console.error, onAway, onBack }) {
  const log = `${api}/agent/logs/${encodeURIComponent(run)}`;
  let last = after;
  let source = null;
  let stopped = false;

  const stop = () => {
    stopped = true;
    source?.close();
  };
  const end = () => {
    stop();
    onEnd?.();
  };
  const pause = () => new Promise((resolve) => setTimeout(resolve, 1000));

  let away = false;
  const missed = (reason) => {
    if (!away && !stopped) onAway?.(reason);
    away = true;
  };
  const reached = () => {
    if (away && !stopped) onBack?.();
    away = false;
  };

  // Return the JSON of a response; repeat the request while the API does not respond. Throw the JSON of a refusal.
  async function ask(request) {
    while (!stopped) {
      const response = await request().catch(() => null);
      const text = await response?.text().catch(() => null);
      const body = parsed(text);
      if (response?.ok && body) {
        reached();
        return body;
      }
      const known = body?.detail && body.type !== "about:blank";
      if (known && ![429, 502, 503, 504].includes(response.status)) throw body;
      // A complete response in another format, or without a type: another server, or a wrong path of the API.
      if (text != null && response.status < 500 && response.status !== 429) {
        throw { detail: `${response.url} is not of this API: it answers with HTTP status ${response.status}` };
      }
      const status = response && `${response.url} answers with HTTP status ${response.status}`;
      missed(body?.detail ?? status ?? "no answer: the API is away, its address is wrong, or it does not allow this page");
      await pause();
    }
  }

  const parsed = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return null;
    }
  };

  // Resolve when the browser gives up. It reconnects by itself, with its last id, after a lost connection, but not after
  // a rejected request.
  const listen = (token) =>
    new Promise((resolve) => {
      source = new EventSource(`${log}/stream?${new URLSearchParams({ token, after: last })}`);
      let failures = 0;
      source.onopen = () => {
        failures = 0;
        reached();
      };
      source.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        last = event.seq;
        onEvent(event);
      };
      source.addEventListener("gap", ({ data }) => {
        const gap = JSON.parse(data);
        last = gap.last;
        onGap?.(gap);
      });
      source.addEventListener("end", end);
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) return resolve();
        // The API ends each stream on purpose, after a while. Only if the next connection fails too, the API is away.
        if (failures) missed(`${api} does not answer`);
        failures += 1;
      };
    });

  async function start() {
    let token;
    while (!stopped) {
      token ??= (await ask(mint))?.token;
      if (stopped) return;
      if (!token) throw { detail: "the answer to mint() has no token" };
      await listen(token);
      // An EventSource does not report why it was rejected. A request for a page of the log does.
      try {
        const query = new URLSearchParams({ token, after: last, limit: 1 });
        const page = await ask(() => fetch(`${log}?${query}`));
        if (page?.done && page.next_after === last) return end();
      } catch (problem) {
        if (problem.type !== "urn:swissbrain:problem:stream-token-expired") throw problem;
        token = undefined;
      }
      await pause();
    }
  }

  start().catch((error) => {
    stop();
    onError(error);
  });
  return stop;
}
