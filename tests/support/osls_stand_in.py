"""Stand-in of osls, which needs an account of AWS: the arguments and outputs of osls 4.3.1 that a deployment uses.

Copied to where osls is installed. Its account is the file `account.json` beside it: the timestamps of the deployments
that are kept, which one runs, and texts with which its commands fail.
"""

import json
import re
import sys
from pathlib import Path

ACCOUNT = Path(__file__).parent / "account.json"
OPTION = re.compile(r"--(stage|region|param|timestamp)=(.+)|--force")


def main() -> int:
    account = json.loads(ACCOUNT.read_text())
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    command = " ".join(words)
    account["calls"].append(sys.argv[1:])
    ACCOUNT.write_text(json.dumps(account))
    if not Path("serverless.yml").is_file():
        return fail("No serverless configuration file found in the current directory")
    if not all(OPTION.fullmatch(option) for option in options):
        return fail(f"Detected unrecognized CLI options: {options}")
    if not any(option.startswith("--param=redisUrl=") for option in options):
        return fail('Cannot resolve variable at "provider.environment.UPSTASH_REDIS_REST_URL": value not found')
    if command in account["failures"]:
        return fail(account["failures"][command])
    return run(command, options, account)


def run(command: str, options: list[str], account: dict) -> int:  # type: ignore[type-arg]
    kept = account["kept"]
    if command == "deploy list":
        if not kept:
            return fail("Stack with id swissbrain-prod does not exist")
        for timestamp in kept:
            print(f"2026-11-29 12:00:00 UTC\nTimestamp: {timestamp}\nFiles:\n  - edge.zip")
    elif command == "deploy":
        if "--force" not in options and account["running"]:
            print("No changes to deploy. Deployment skipped.")
            return 0
        kept.append(str(int(kept[-1]) + 1 if kept else 1000))
        account["running"] = kept[-1]
        print("Deploying swissbrain to stage prod", file=sys.stderr)
    elif command == "rollback":
        (timestamp,) = (option.partition("=")[2] for option in options if option.startswith("--timestamp="))
        if timestamp not in kept:
            return fail(f"Couldn't find a deployment for the timestamp: {timestamp}.")
        account["running"] = timestamp
    else:
        return fail(f'Command "{command}" not found')
    ACCOUNT.write_text(json.dumps(account))
    return 0


def fail(message: str) -> int:
    print(f"Error:\n{message}")
    print("Environment: linux, node 20.20.2, osls 4.3.1 (local)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
