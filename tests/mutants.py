"""What tests/mutants.sh runs: COPY (a copy of the tree, and cargo-mutants' list), COUNT or `again`, SEED, LOG.

Building takes longer than testing, so all mutants are built at once, with `if crate::mutant_is(n) { changed body } else
{ body }` in place of the body of each function that is changed; LARDER_MUTANT says which of them is in force. What cannot be
had like that (constants, `const fn`, functions that return `impl Trait`) is built alone. A mutant that does not compile alone
is unviable: it does not count, and the next one is drawn. Each test of `it` is run once unchanged, and tells which mutants'
functions it comes through: only those tests are tried on a mutant, the quick ones first.

A mutant is known by what it changes and in which function, not by its line: so a log outlives changes elsewhere in the file.
Lines of the log whose outcome is `drawn` say what is tried first, in their order: a sample that was drawn before.
"""

import collections, concurrent.futures, json, os, queue, random, re, resource, shutil, signal, subprocess, sys, threading, time

copy, count, seed, log = sys.argv[1:]
root, tree = os.getcwd(), f"{copy}/tree"
# What is tried after what, and in how many seconds without a test that ends it hangs. They are counted one by one: a machine
# that stands still for a while is no hang.
STEPS = [
    ("it", ["--test-threads", "4", "--exact"], {}, 120),
    ("model", [], {"LARDER_MODEL_RUNS": "50"}, 600),
    ("policy", [], {}, 900),
    ("crash", ["power", "damage", "faults", "clock"], {"LARDER_CRASH_PERCENT": "1"}, 600),
]
# Tests of other packages.
PACKAGES = {"policy": "larder-bench"}
# So many of the tests of `it` are tried at once, the quickest first; then as many again and more.
FIRST_TESTS = 12
MUTANT_IS = """
/// Whether the mutant `n` is in force. Tells once that its function was reached, if that is wanted.
pub(crate) fn mutant_is(n: u32) -> bool {
    use std::sync::{OnceLock, atomic::{AtomicBool, Ordering}};
    static IN_FORCE: OnceLock<Option<u32>> = OnceLock::new();
    static REACHED: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];
    let in_force = *IN_FORCE.get_or_init(|| std::env::var("LARDER_MUTANT").ok()?.parse().ok());
    if in_force.is_none() && !REACHED[n as usize].swap(true, Ordering::Relaxed) {
        if let Some(path) = std::env::var_os("LARDER_MUTANTS_REACHED") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{n}\n").as_bytes()));
        }
    }
    in_force == Some(n)
}
"""
# Mutants may fill the place where tests keep their stores: root gives each a small one of its own.
OWN_PLACE = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=3g mutants /dev/shm && exec "$@"', "sh"]
if subprocess.run([*OWN_PLACE, "true"], stderr=subprocess.DEVNULL).returncode != 0:
    OWN_PLACE = []


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


originals = {}


def original(file):
    if file not in originals:
        originals[file] = read(f"{root}/{file}")
    return originals[file]


def write(path, text):
    """Writes the file unless it has this text: what does not change is not built again."""
    if not os.path.exists(path) or read(path) != text:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def place(text, at):
    """The index of a line and column."""
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: at["line"] - 1])) + at["column"] - 1


def span(text, of):
    return place(text, of["start"]), place(text, of["end"])


def body(mutant):
    """Where the body of the function is, braces included; None if a mutant of it has to be built alone."""
    function = mutant["function"]
    if function is None or "impl " in function["return_type"]:
        return None
    text = original(mutant["file"])
    start, end = span(text, function["span"])
    name = re.escape(function["function_name"].split("::")[-1])
    head = re.search(rf"(\bconst )?\bfn {name}\b[^{{]*", text[start:end])
    if head is None or head[1] or "impl " in head[0].split("->")[-1]:
        return None
    return start + head.end(), end


def changed(mutant, start, end):
    """The text between two places with the change made."""
    text = original(mutant["file"])
    first, last = span(text, mutant["span"])
    return text[start:first] + mutant["replacement"] + text[last:end]


def put(together=(), alone=None):
    """Writes the sources; the lines of each mutant, by file."""
    lines, changes = {}, collections.defaultdict(lambda: collections.defaultdict(list))
    for mutant in together:
        changes[mutant["file"]][body(mutant)].append(mutant)
    for file in {mutant["file"] for mutant in mutants}:
        text, out, at = original(file), "", 0
        for (start, end), of in sorted(changes[file].items()):
            out += text[at:start] + "{ "
            for mutant in of:
                out += f"if crate::mutant_is({mutant['number']}) "
                first = out.count("\n") + 1
                out += changed(mutant, start, end) + "\n else "
                lines[mutant["number"]] = file, first, out.count("\n")
            out += text[start:end] + " }"
            at = end
        out += text[at:]
        if alone is not None and alone["file"] == file:
            out = changed(alone, 0, len(text))
        write(f"{tree}/{file}", out)
    return lines


def cargo(*args, package="larder"):
    """Whether cargo succeeds, and its messages."""
    command = ["cargo", *args, "-q", "-p", package, "--message-format=json"]
    made = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return made.returncode == 0, [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]


def errors(messages):
    """File and line of each error."""
    for message in messages:
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            for at in message["message"]["spans"]:
                yield at["file_name"], at["line_start"]


def sort_out(chosen, before=()):
    """Splits mutants into those that can be built together (with those before), those to be built alone, and those that do
    not compile."""
    together, alone = [], []
    for mutant in chosen:
        here = body(mutant)
        apart = here is None or any(
            mutant["file"] == other["file"] and here != body(other)
            and here[0] < body(other)[1] and body(other)[0] < here[1] for other in [*before, *together])
        (alone if apart else together).append(mutant)
    while True:
        lines = put(together)
        compiles, messages = cargo("check", "--lib")
        if compiles:
            break
        at = set(errors(messages))
        inside = lambda n: any(f == lines[n][0] and lines[n][1] <= line <= lines[n][2] for f, line in at)
        bad = [mutant for mutant in together if inside(mutant["number"])]
        if not bad:
            sys.exit(f"the sources do not compile, for no mutant's sake: {sorted(at)}")
        alone += bad
        together = [mutant for mutant in together if mutant not in bad]
    unviable = []
    for mutant in list(alone):
        put(alone=mutant)
        if not cargo("check", "--lib")[0]:
            unviable.append(mutant)
            alone.remove(mutant)
    return together, alone, unviable


def program(test):
    compiles, messages = cargo("test", "--test", test, "--no-run", package=PACKAGES.get(test, "larder"))
    if not compiles:
        sys.exit(f"the test {test} does not compile: {sorted(set(errors(messages)))}")
    return [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == test][-1]


def limits():
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def failure(made, args, env, quiet_seconds):
    """The first test that fails, or that it hangs; None if all pass."""
    child = subprocess.Popen(
        [*OWN_PLACE, made, *args], cwd=tree, env=os.environ | env, preexec_fn=limits, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = queue.Queue()

    def listen():
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    failed, quiet, last = None, 0, ""
    while failed is None:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            quiet += 1
            failed = "hangs" if quiet == quiet_seconds else None
            continue
        if line is None:
            child.wait()
            break
        last = line.strip() or last
        # Only what ends counts: libtest also tells what has been running for a minute.
        if re.match(r"test .* \.\.\. |\{", line):
            quiet = 0
            failed = line.split()[1] if line.rstrip().endswith("FAILED") else None
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    status = child.wait()
    return f"exit {status}: {last[:200]}" if failed is None and status != 0 else failed


def try_all(program):
    """Runs each test of `it` by itself: seconds, and the mutants whose functions it comes through."""
    kept, made_at = f"{copy}/tests.json", os.stat(program).st_mtime
    if os.path.exists(kept) and (known := json.loads(read(kept)))["made_at"] == made_at:
        return known["tests"]
    listed = subprocess.run([program, "--list", "--format", "terse"], cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
    # `tidy` reads the source, and would see the change itself.
    names = [line[: -len(": test")] for line in listed.stdout.splitlines() if line.endswith(": test")]
    names = [name for name in names if not name.startswith("tidy::")]

    def try_one(name):
        reached, started = f"{copy}/reached-{name.replace('::', '-')}", time.time()
        if os.path.exists(reached):
            os.remove(reached)
        failed = failure(program, ["--exact", name], {"LARDER_MUTANTS_REACHED": reached}, 600)
        numbers = set(map(int, read(reached).split())) if os.path.exists(reached) else set()
        return name, failed, time.time() - started, numbers

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tried = list(pool.map(try_one, names))
    if failing := [name for name, failed, _, _ in tried if failed is not None]:
        sys.exit(f"tests fail without any change: {failing}")
    tests = sorted([seconds, name, sorted(numbers)] for name, _, seconds, numbers in tried)
    write(kept, json.dumps({"made_at": made_at, "tests": tests}))
    return tests


def passes_unchanged(test):
    """The program of a test, if a run without any change passes."""
    made = program(test)
    _, args, env, quiet_seconds = next(step for step in STEPS if step[0] == test)
    if failed := failure(made, args, env, quiet_seconds):
        sys.exit(f"{test} fails without any change: {failed}")
    return made


def judge(mutant, step, made, tests):
    """Tries one step on a mutant; `tests` are those of `it`, in order."""
    (test, args, env, quiet_seconds), started = step, time.time()
    batches, size = [[]], FIRST_TESTS
    if test == "it":
        batches, at = [], 0
        while at < len(tests):
            batches.append(tests[at : at + size])
            at, size = at + size, 2 * size
    outcome, by = ("survived" if step is STEPS[-1] else "open"), test
    for batch in batches:
        failed = failure(made, [*args, *batch], env | {"LARDER_MUTANT": str(mutant["number"])}, quiet_seconds)
        if failed is not None:
            outcome, by = ("hung" if failed == "hangs" else "caught"), f"{test}: {failed}"
            break
    note(mutant, outcome, by, started)


def note(mutant, outcome, by, started):
    """Adds a line to the log. An open mutant has passed the test named, and the next one is still to be tried."""
    line = {"name": mutant["name"], "outcome": outcome, "by": by, "seconds": round(time.time() - started, 1)}
    if mutant["twin"] > 0:
        line["twin"] = mutant["twin"]
    done[identity(mutant)] = line
    with open(log, "a") as out:
        out.write(json.dumps(line) + "\n")
    say(f"{viable():4} {outcome:9} {line['seconds']:6} s  {mutant['name']}  [{by}]")


def viable():
    return sum(line["outcome"] not in ("unviable", "drawn") for line in done.values())


def identity(line):
    """What a mutant (or its line in the log) changes, without its place; `twin` counts equal ones in a file from the top."""
    file, _, _, what = line["name"].split(":", 3)
    return file, what, line.get("twin", 0)


def is_open(mutant, step):
    line = done.get(identity(mutant))
    if line is not None and line["outcome"] == "drawn":
        line = None
    before = STEPS[STEPS.index(step) - 1][0] if step is not STEPS[0] else None
    return before is None and (line is None or again and line["outcome"] == "survived") or (
        line is not None and line["outcome"] == "open" and line["by"] == before)


again = count == "again"
mutants = sorted(json.loads(read(f"{copy}/mutants.json")), key=lambda mutant: mutant["name"])
random.Random(int(seed)).shuffle(mutants)
for number, mutant in enumerate(mutants):
    mutant["number"] = number
twins = collections.Counter()
for mutant in sorted(mutants, key=lambda mutant: (mutant["span"]["start"]["line"], mutant["span"]["start"]["column"])):
    twin = identity(mutant)
    mutant["twin"] = twins[twin]
    twins[twin] += 1
done = {identity(line): line for line in map(json.loads, read(log).splitlines())} if os.path.exists(log) else {}
mutated = {mutant["file"] for mutant in mutants}
listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], stdout=subprocess.PIPE, check=True)
for file in filter(os.path.isfile, listed.stdout.decode().split("\0")):
    if file == "src/lib.rs":
        write(f"{tree}/{file}", read(file) + MUTANT_IS)
    elif file.endswith((".rs", ".toml", ".lock", ".md")) and file not in mutated:
        write(f"{tree}/{file}", read(file))
    elif file not in mutated:
        os.makedirs(os.path.dirname(f"{tree}/{file}"), exist_ok=True)
        shutil.copyfile(file, f"{tree}/{file}")

# Those that a run before has left open, or let pass; then in order, until enough of them compile.
kept = [m for m in mutants if done.get(identity(m), {}).get("outcome") in (("survived", "open") if again else ("open",))]
together, alone, _ = sort_out(kept) if kept else ([], [], [])
if not again:
    drawn = [one for one, line in done.items() if line["outcome"] == "drawn"]
    of = {identity(mutant): mutant for mutant in mutants}
    if gone := [one for one in drawn if one not in of]:
        sys.exit(f"drawn, and not there any more: {gone}")
    left = iter([of[one] for one in drawn] + [mutant for mutant in mutants if identity(mutant) not in done])
    while (missing := int(count) - viable() - len(together) - len(alone) + len(kept)) > 0:
        more = [mutant for _, mutant in zip(range(missing), left)]
        if not more:
            break
        new_together, new_alone, unviable = sort_out(more, together)
        for mutant in unviable:
            note(mutant, "unviable", "", time.time())
        together, alone = together + new_together, alone + new_alone
say(f"{len(mutants)} mutants; to try: {len(together)} built together, {len(alone)} alone")

if together or alone:
    put(together)
    started, made = time.time(), program("it")
    built = time.time()
    tests = try_all(made)
    say(f"built in {built - started:.0f} s; {len(tests)} tests pass in {time.time() - built:.0f} s")
for step in STEPS:
    test = step[0]
    to_do = [mutant for mutant in together if is_open(mutant, step)]
    made = passes_unchanged(test) if to_do and test != "it" else made if to_do else None
    for mutant in to_do:
        judge(mutant, step, made, [name for _, name, numbers in tests if mutant["number"] in numbers])
for mutant in alone:
    put(alone=mutant)
    for step in STEPS:
        if is_open(mutant, step):
            judge(mutant, step, program(step[0]), [name for _, name, _ in tests])

outcomes = collections.Counter(line["outcome"] for line in done.values())
caught = outcomes["caught"] + outcomes["hung"]
for line in done.values():
    if line["outcome"] == "survived":
        say(f"survived: {line['name']}")
print(json.dumps({
    "seed": int(seed), "mutants": len(mutants), "viable": viable(), "caught": caught,
    "percent": round(100 * caught / max(viable(), 1), 1), "hung": outcomes["hung"],
    "by": collections.Counter(line["by"].split(":")[0] for line in done.values() if line["outcome"] in ("caught", "hung")),
    "survived": outcomes["survived"], "unviable": outcomes["unviable"]}))
