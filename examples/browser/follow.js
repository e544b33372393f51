// Follow the log of a run across lost connections, restarts and expired tokens: each event once and in order.
//
//   mint()          returns the response with a stream token: a fetch() of the API's route, or of your own server's
//   after           seq of the last event that the page already has; 0 for none
//   onEvent(event)  {seq, ts, type, step, data}
//   onGap(gap)      {first, last}: these events are no longer stored
//   onEnd()         the run has ended, and the log is complete
//   onError(error)  rejected for good: a problem of the API {type, title, status, detail}, or the error of mint()
//
// Returns a function that stops following.
export function follow(api, run, { mint, after = 0, onEvent, onGap, onEnd, onError = console.error }) {
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

  // Return the JSON of a response; repeat the request while the API is unreachable. Throw the JSON of an error response.
  async function ask(request) {
    while (!stopped) {
      const response = await request().catch(() => null);
      const body = await response?.json().catch(() => null);
      if (body && response.ok) return body;
      if (body && ![429, 502, 503, 504].includes(response.status)) throw body;
      await pause();
    }
  }

  // Resolve when the browser gives up. It reconnects by itself, with its last id, after a lost connection, but not after
  // a rejected request.
  const listen = (token) =>
    new Promise((resolve) => {
      source = new EventSource(`${log}/stream?${new URLSearchParams({ token, after: last })}`);
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
      source.onerror = () => source.readyState === EventSource.CLOSED && resolve();
    });

  async function start() {
    let token;
    while (!stopped) {
      token ??= (await ask(mint))?.token;
      if (stopped) return;
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
