// Follows the log of a run, over lost connections, restarts and expired tokens: each event once and in order.
//
//   mint()          asks for a stream token: a fetch() of the API's route, or of your own server's that calls it
//   after           the seq of the last event that the page has had before, 0 for none
//   onEvent(event)  {seq, ts, type, step, data}
//   onGap(gap)      {first, last}: these events are no longer kept
//   onEnd()         the run has ended, and this was its log
//   onError(error)  refused for good: a problem of the API {type, title, status, detail}, or what mint() failed with
//
// What it returns stops it.
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
  const pause = () => new Promise((over) => setTimeout(over, 1000));

  // The JSON of an answer; asked for again as long as nobody is there to answer. Throws what is said instead.
  async function ask(request) {
    while (!stopped) {
      const answer = await request().catch(() => null);
      const said = await answer?.json().catch(() => null);
      if (said && answer.ok) return said;
      if (said && ![429, 502, 503, 504].includes(answer.status)) throw said;
      await pause();
    }
  }

  // Over when the browser gives up. It comes back by itself, with its last id, if a connection is lost, but not if it
  // is refused.
  const listen = (token) =>
    new Promise((over) => {
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
      source.onerror = () => source.readyState === EventSource.CLOSED && over();
    });

  async function start() {
    let token;
    while (!stopped) {
      token ??= (await ask(mint))?.token;
      if (stopped) return;
      await listen(token);
      // An EventSource does not say why it was refused. A page of the log does.
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
