// Documented uses of the public JavaScript clients; run by `tests.gateway.public_sdks` in a folder of its own.
import assert from "node:assert";
import { Lock } from "@upstash/lock";
import { MultiRegionRatelimit, Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";

const redis = Redis.fromEnv();
const limiter = (algorithm) => async () => {
  const limit = new Ratelimit({ redis, limiter: algorithm, prefix: `js-${Math.random()}`, ephemeralCache: false });
  const allowed = [];
  for (let i = 0; i < 4; i++) allowed.push((await limit.limit("user")).success);
  assert.deepStrictEqual(allowed, [true, true, true, false]);
  await limit.getRemaining("user");
  await limit.resetUsedTokens("user");
  assert((await limit.limit("user")).success);
};

const uses = {
  "values of any text": async () => {
    for (const value of ["OK", "é😀", "x".repeat(100_000)]) {
      await redis.set("text", value);
      assert.strictEqual(await redis.get("text"), value);
      await redis.hset("hash", { field: value });
      assert.deepStrictEqual(await redis.hgetall("hash"), { field: value });
      assert.deepStrictEqual(await redis.mget("text", "none"), [value, null]);
    }
  },
  "half a character": async () => {
    await redis.set("text", "hi 😀".slice(0, 4));
    assert.strictEqual(await redis.get("text"), "hi \ufffd");
  },
  "pipeline and transaction": async () => {
    for (const batch of [redis.pipeline(), redis.multi()]) {
      const results = await batch.set("n", 1).incr("n").del("list").lpush("list", "OK").lrange("list", 0, 0).exec();
      assert.deepStrictEqual([results[0], results[1], results[4]], ["OK", 2, ["OK"]]);
    }
  },
  "script object": async () => {
    const script = redis.createScript("#!lua flags=allow-key-locking\nreturn ARGV[1]");
    assert.strictEqual(await script.exec([], ["x"]), "x");
    assert.strictEqual(await script.evalsha([], ["x"]), "x");
  },
  "library of functions": async () => {
    const register = "redis.register_function{function_name='f', callback=f, flags={'no-writes', 'allow-key-locking'}}";
    const code = `#!lua name=lib\nlocal function f(keys, args) return args[1] end\n${register}`;
    assert.strictEqual(await redis.functions.load({ code, replace: true }), "lib");
    assert.strictEqual(await redis.functions.callRo("f", [], ["x"]), "x");
    assert.strictEqual((await redis.functions.list())[0].libraryName, "lib");
    await redis.functions.delete("lib");
  },
  "subscription": async () => {
    const subscription = redis.subscribe("channel");
    const message = new Promise((resolve) => subscription.on("message", (event) => resolve(event.message)));
    await new Promise((resolve) => subscription.on("subscribe", resolve));
    await redis.publish("channel", "hello");
    assert.strictEqual(await message, "hello");
    await subscription.unsubscribe();
  },
  "subscription to a pattern": async () => {
    const subscription = redis.psubscribe("user:*");
    const message = new Promise((resolve) => subscription.on("pmessage", (event) => resolve(event)));
    await new Promise((resolve) => subscription.on("psubscribe", resolve));
    await redis.publish("user:1", { text: "a,b" });
    assert.deepStrictEqual(await message, { pattern: "user:*", channel: "user:1", message: { text: "a,b" } });
    await subscription.unsubscribe();
  },
  "many readers at once": async () => {
    const value = "x".repeat(500_000);
    await redis.set("large", value);
    const found = await Promise.all(Array.from({ length: 40 }, () => Redis.fromEnv().get("large")));
    assert(found.every((each) => each === value));
  },
  "errors of a pipeline": async () => {
    const results = await redis.pipeline().set("text", "x").lpush("text", "y").get("text").exec({ keepErrors: true });
    assert.deepStrictEqual(results.map((each) => Boolean(each.error)), [false, true, false]);
  },
  "limiter of several regions": async () => {
    const limiter = MultiRegionRatelimit.slidingWindow(1, "600 s");
    // One region: two of them in the same database would count each request of the other one, at times before their own.
    const limit = new MultiRegionRatelimit({ redis: [redis], limiter, prefix: `m-${Math.random()}` });
    assert((await limit.limit("user")).success);
    assert(!(await limit.limit("user")).success);
  },
  "fixed window": limiter(Ratelimit.fixedWindow(3, "600 s")),
  "sliding window": limiter(Ratelimit.slidingWindow(3, "600 s")),
  "token bucket": limiter(Ratelimit.tokenBucket(1, "600 s", 3)),
  "lock": async () => {
    const options = { id: `lock-${Math.random()}`, redis, lease: 5000, retry: { attempts: 1, delay: 10 } };
    const [first, second] = [new Lock(options), new Lock(options)];
    assert(await first.acquire());
    assert(!(await second.acquire()));
    assert(await first.extend(1000));
    assert(await first.release());
    assert(await second.acquire());
  },
};

let failed = 0;
for (const [name, use] of Object.entries(uses)) {
  try {
    await use();
    console.log(`javascript ${name}: ok`);
  } catch (error) {
    failed = 1;
    console.log(`javascript ${name}: FAILED: ${error}`);
  }
}
process.exit(failed);
