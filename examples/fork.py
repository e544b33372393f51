"""Fork a finished run: keep its first steps with their files, and replace the rest."""

from swissbrain import Client, shell


def main() -> None:
    """Count the words of a text, then let a fork sort the same text."""
    with Client.from_env(notify=print) as client:
        first = client.run([shell("printf 'b\\nc\\na\\n' > text.txt", name="fetch"), shell("wc -l < text.txt")])
        fork = client.fork(first.run_id, 1, plan=shell("sort text.txt > sorted.txt"))
        fork = client.wait(fork.run_id, timeout_s=60)
        print(f"{fork.run_id} is {fork.status}; taken over from {fork.fork_of}")
        print(client.read_text(fork.run_id, "sorted.txt"), end="")


if __name__ == "__main__":
    main()
