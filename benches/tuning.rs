//! Does compression tuning find what is best? Measured on real data, in Markdown.
//!
//! `cargo bench --bench tuning` (minutes), `-- --quick` (less data, fewer rounds: figures, no verdicts),
//! `-- --store` or `-- --attempts` (only that part), `-- --only NAME` (only the rows with this in their name).

use std::path::{Path, PathBuf};
use std::time::Instant;

use larder::internals::classes::class_of;
use larder::internals::compression::{CompressionParameters, FRAME_ROOM, compress, decompress};
use larder::internals::dictionary::{Dictionary, DictionaryTable, train_dictionary};
use larder::internals::efficiency_analyzer::{
    Analysis, DICTIONARY_BYTES, DICTIONARY_BYTES_SPACE, DictionarySource, LEVELS, LEVELS_SPACE,
    MemoryEfficiencyAnalyzer, Sample, Situation, train_on,
};
use larder::internals::gate::looks_random;
use larder::{
    Codec, ColdTier, ColdTierConfig, CompactionTask, Compression, Durability, Maintenance, TaskReport,
    TuningReport, Weights,
};

const READ_SHARE: f64 = 0.5;

type Entry = (Vec<u8>, Vec<u8>);

struct Bench {
    quick: bool,
}

fn main() {
    let bench = Bench { quick: std::env::args().any(|arg| arg == "--quick") };
    let sets = bench.sets();
    if std::env::args().any(|arg| arg == "--store") {
        bench.whole_store(&sets[0].1);
        return;
    }
    if std::env::args().any(|arg| arg == "--attempts") {
        bench.attempts(&sets);
        return;
    }
    let only = std::env::args().skip_while(|arg| arg != "--only").nth(1);
    println!("## Choice against the best single static choice\n");
    println!(
        "| data | weights | values | mean bytes | tuned | cost ns | best static | cost ns | tuned worse by | best again | analysis, CPU ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for weights in [Weights::Balanced, Weights::Space, Weights::Speed] {
        if bench.quick && weights != Weights::Balanced {
            continue;
        }
        for (at, (name, entries)) in sets.iter().enumerate() {
            // All of them by the default weights, some by the others.
            let is_wanted = only.as_ref().is_none_or(|only| name.contains(only.as_str()));
            if is_wanted && (weights == Weights::Balanced || [0, 1, 5].contains(&at)) {
                bench.compare(name, entries, weights);
            }
        }
    }
    if only.is_some() {
        return;
    }
    bench.by_size(&sets[0].1);
    bench.gate(&sets);
    bench.attempts(&sets);
    bench.whole_store(&sets[0].1);
}

impl Bench {
    fn sets(&self) -> Vec<(String, Vec<Entry>)> {
        let count = if self.quick { 2000 } else { 6000 };
        let random = |count: usize, len: usize| -> Vec<Entry> {
            let mut rng = fastrand::Rng::with_seed(len as u64);
            let mut bytes = |len: usize| (0..len).map(|_| rng.u8(..)).collect::<Vec<u8>>();
            (0..count).map(|n| (format!("key {n:06}").into_bytes(), bytes(len))).collect()
        };
        let json = json_records();
        let cargo = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo/registry/src");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut source = chunks(&[&root.join("src"), &cargo], &["rs"], 4096, 24 << 20);
        let mut large = chunks(&[&root.join("src"), &cargo], &["rs", "c", "h"], 64 << 10, 64 << 20);
        large.retain(|(_, value)| value.len() == 64 << 10);
        let mut html =
            chunks(&[Path::new("/usr/share"), &root.join("target/doc")], &["html"], 8192, 24 << 20);
        if html.len() < 400 {
            html = chunks(&[&std::env::temp_dir().join("target-tune/doc")], &["html"], 8192, 24 << 20);
        }
        let mut images = chunks(
            &[Path::new("/usr/share"), &cargo],
            &["png", "jpg", "jpeg", "gif", "webp", "woff2"],
            32 << 10,
            24 << 20,
        );
        images.retain(|(_, value)| value.len() >= 512);
        let mut image_name = "images on disk (PNG, JPEG, ...)";
        if images.len() < 200 {
            image_name = "no images here: blobs of zstd 19";
            let text: Vec<u8> = source.iter().flat_map(|entry| entry.1.clone()).take(40 << 20).collect();
            let packed = text.chunks(64 << 10).map(|part| zstd::encode_all(part, 15).expect("zstd"));
            images = packed.enumerate().map(|(n, blob)| (format!("blob {n}").into_bytes(), blob)).collect();
        }
        // Records such as counters, sessions and flags: 64 bytes, much alike.
        let mut rng = fastrand::Rng::with_seed(64);
        let mut small: Vec<Entry> = Vec::new();
        for n in 0..count {
            let mut value = format!(
                "{{\"user\":{},\"visits\":{},\"last\":17{:08},\"plan\":\"",
                rng.u32(..99999),
                rng.u16(..),
                rng.u32(..99_999_999)
            );
            value.push_str(["free", "pro", "team"][rng.usize(..3)]);
            value.push_str("\"}");
            let mut value = value.into_bytes();
            value.resize(64, b' ');
            small.push((format!("user:{n}").into_bytes(), value));
        }
        let mut mixed: Vec<Entry> = json.iter().take(count).cloned().collect();
        mixed.extend(random(count / 20, 40_000));
        fastrand::Rng::with_seed(1).shuffle(&mut mixed);
        for set in [&mut source, &mut large, &mut html, &mut images] {
            fastrand::Rng::with_seed(2).shuffle(set);
            set.truncate(20_000);
        }
        vec![
            ("JSON records".to_owned(), json),
            ("source code, 4 KiB".to_owned(), source),
            ("HTML, 8 KiB".to_owned(), html),
            (image_name.to_owned(), images),
            ("random, 1000 B".to_owned(), random(count, 1000)),
            ("64-byte values".to_owned(), small),
            ("source code, 64 KiB".to_owned(), large),
            ("mixed: JSON, 40 KB random".to_owned(), mixed),
        ]
    }

    /// Tunes on a sample, finds the best of all single choices on other values, and compares the two on others again,
    /// turn and turn about; a copy of the best single choice shows what the clock alone makes of equal ones.
    fn compare(&self, name: &str, entries: &[Entry], weights: Weights) {
        if entries.len() < 200 {
            println!("| {name} | {weights} | {} | | too few found | | | | | |", entries.len());
            return;
        }
        let mut order: Vec<&Entry> = entries.iter().collect();
        fastrand::Rng::with_seed(3).shuffle(&mut order);
        let (sampled, rest) = order.split_at((entries.len() / 2).min(1000));
        let samples: Vec<Sample> = sampled.iter().map(|entry| sample(entry)).collect();
        let bytes_max = if self.quick { 1 << 20 } else { 2 << 20 };
        let (searched, fresh) = rest.split_at(rest.len() / 2);
        let (searched, fresh) = (first_bytes(searched, bytes_max), first_bytes(fresh, bytes_max));
        let before = cpu_ns();
        let analysis = analyze(&samples, weights, entries.len() as u64);
        let took = (cpu_ns() - before) / 1e6;
        let (levels, dictionary_bytes): (&[i8], &[usize]) = match weights {
            Weights::Space => (&LEVELS_SPACE, &DICTIONARY_BYTES_SPACE),
            _ => (&LEVELS, &DICTIONARY_BYTES),
        };
        let dictionaries: Vec<Vec<u8>> =
            dictionary_bytes.iter().filter_map(|&bytes| train_on(samples.iter(), bytes)).collect();
        let mut singles = Vec::new();
        for codec in [Codec::None, Codec::Lz4].into_iter().chain(levels.iter().copied().map(Codec::Zstd)) {
            singles.push((codec, None));
            if let Codec::Zstd(_) = codec {
                singles.extend(dictionaries.iter().map(|bytes| (codec, Some(bytes))));
            }
        }
        let mut ways: Vec<Way> = singles.iter().map(|(codec, bytes)| Way::single(*codec, *bytes)).collect();
        let costs = self.costs(&mut ways, &searched, weights, entries.len(), 5);
        let best = (0..ways.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b])).expect("many");
        let again = || Way::single(singles[best].0, singles[best].1);
        // Several copies of each: where its dictionary happens to lie in memory moves the times of one by 2 %.
        let copies = if self.quick { 1 } else { 4 };
        let mut ways: Vec<Way> =
            (0..copies).flat_map(|_| [Way::tuned(&analysis), again(), again()]).collect();
        let all = self.costs(&mut ways, &fresh, weights, entries.len(), 10);
        let mean_cost = |at: usize| all.iter().skip(at).step_by(3).sum::<f64>() / f64::from(copies);
        let costs = [mean_cost(0), mean_cost(1), mean_cost(2)];
        let mean = bytes_of(&fresh) / fresh.len();
        println!(
            "| {name} | {weights} | {} | {mean} | {} | {:.0} | {} | {:.0} | {:+.1} % | {:+.1} % | {took:.0} |",
            entries.len(),
            ways[0].name,
            costs[0],
            ways[1].name,
            costs[1],
            (costs[0] / costs[1] - 1.0) * 100.0,
            (costs[2] / costs[1] - 1.0) * 100.0
        );
    }

    fn costs(
        &self,
        ways: &mut [Way],
        tested: &[&Entry],
        weights: Weights,
        live: usize,
        rounds: usize,
    ) -> Vec<f64> {
        for _ in 0..if self.quick { 3 } else { rounds } {
            for way in &mut *ways {
                way.time(tested);
            }
        }
        ways.iter().map(|way| way.cost(tested, weights, live)).collect()
    }

    /// What the bounds of the classes rest on.
    fn by_size(&self, json: &[Entry]) {
        println!("\n## What a 64 KiB dictionary gains, by size (JSON cut to size, zstd 3)\n");
        println!("| bytes | alone | with dictionary | gain |\n|---|---|---|---|");
        let text: Vec<u8> = json.iter().flat_map(|entry| entry.1.clone()).collect();
        for size in [64, 128, 256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10] {
            let mut parts: Vec<&[u8]> = text.chunks_exact(size).collect();
            fastrand::Rng::with_seed(4).shuffle(&mut parts);
            let (training, tested) = parts.split_at((6 << 20) / size.max(2048));
            let tested = &tested[..tested.len().min(400)];
            let Some(bytes) = train_dictionary(training, 64 << 10) else { continue };
            let dictionary = Dictionary::new(1, bytes, 3).expect("trained");
            let stored = |dictionary: Option<&Dictionary>| {
                let slot = dictionary.map_or(0, Dictionary::slot);
                let how = CompressionParameters { codec: Codec::Zstd(3), dictionary: slot, gate: false };
                tested.iter().map(|part| compress(b"", part, how, dictionary, 0).stored.len()).sum::<usize>()
            };
            let raw = (tested.len() * size) as f64;
            let (alone, with) = (raw / stored(None) as f64, raw / stored(Some(&dictionary)) as f64);
            println!("| {size} | {alone:.2} | {with:.2} | {:+.0} % |", (with / alone - 1.0) * 100.0);
        }
    }

    /// What the gate stops, what it costs a look, and what it would lose.
    fn gate(&self, sets: &[(String, Vec<Entry>)]) {
        println!("\n## The gate\n");
        println!("| data | stopped | ns a look | ratio without | with | lost |\n|---|---|---|---|---|---|");
        for (name, entries) in sets {
            let tested = &entries[..entries.len().min(1000)];
            if tested.is_empty() {
                continue;
            }
            let stopped = tested.iter().filter(|(key, value)| looks_random(key, value)).count();
            let mut best = f64::MAX;
            for _ in 0..20 {
                let started = Instant::now();
                for (key, value) in tested {
                    std::hint::black_box(looks_random(key, value));
                }
                best = best.min(started.elapsed().as_nanos() as f64 / tested.len() as f64);
            }
            let ratio = |gate: bool| {
                let how = CompressionParameters { codec: Codec::Zstd(9), dictionary: 0, gate };
                let stored = |(key, value): &Entry| compress(key, value, how, None, 0).stored.len();
                let raw: usize = tested.iter().map(|(key, value)| key.len() + value.len()).sum();
                raw as f64 / tested.iter().map(stored).sum::<usize>() as f64
            };
            let (without, with) = (ratio(false), ratio(true));
            println!(
                "| {name} | {:.1} % | {best:.0} | {without:.3} | {with:.3} | {:.2} % |",
                stopped as f64 * 100.0 / tested.len() as f64,
                (1.0 - with / without) * 100.0
            );
        }
    }

    /// CPU time of the put path, both threads, that goes to compressing what does not shrink: tuned against not
    /// compressing at all, and the gate in a class of mixed values.
    fn attempts(&self, sets: &[(String, Vec<Entry>)]) {
        println!("\n## CPU time for attempts on data that does not shrink\n");
        println!("| data | put, never compressed, ns | again | tuned | choices |");
        println!("|---|---|---|---|---|");
        let barely = |name: &str| ["random,", "images", "blobs"].iter().any(|kind| name.contains(kind));
        for (name, entries) in sets.iter().filter(|(name, _)| barely(name)) {
            let entries = &entries[..entries.len().min(3000)];
            let ways = [Compression::Fixed(Codec::None), Compression::Fixed(Codec::None), Compression::Tuned];
            let stores = ways.map(|compression| Puts::new(entries, compression));
            let rounds = if self.quick { 5 } else { 60 };
            let mut spent = [const { Vec::new() }; 3];
            for round in 0..rounds {
                // In another order each time: whoever follows a compaction finds other caches.
                for turn in 0..3 {
                    let at = (turn + round) % 3;
                    spent[at].push(stores[at].cpu_ns(entries));
                }
            }
            // The rounds are alike within themselves, not among themselves.
            let against_plain = |at: usize| {
                let pairs = spent[at].iter().zip(&spent[0]);
                (median(pairs.map(|(it, plain)| it / plain).collect()) - 1.0) * 100.0
            };
            println!(
                "| {name} | {:.0} | {:+.1} % | {:+.1} % | {} |",
                median(spent[0].clone()),
                against_plain(1),
                against_plain(2),
                stores[2].choices()
            );
        }
        // In a class of mixed values each random one costs a look.
        let random = &sets.iter().find(|(name, _)| name.starts_with("random")).expect("made").1;
        let store = Puts::new(&random[..2000], Compression::Fixed(Codec::None));
        let plain = (0..10).map(|_| store.cpu_ns(&random[..2000])).fold(f64::MAX, f64::min);
        let mut look = f64::MAX;
        for _ in 0..50 {
            let started = Instant::now();
            for (key, value) in &random[..2000] {
                std::hint::black_box(looks_random(key, value));
            }
            look = look.min(started.elapsed().as_nanos() as f64 / 2000.0);
        }
        println!(
            "\nA look at a random value of 1000 bytes: {look:.0} ns, {:.1} % of its put.",
            look * 100.0 / (plain + look)
        );
    }

    /// The records in a store: loaded, tuned, compacted, tuned again and again.
    fn whole_store(&self, json: &[Entry]) {
        println!("\n## JSON records in a whole store\n");
        let raw: usize = bytes_of(&json.iter().collect::<Vec<_>>());
        let zstd3 = CompressionParameters::plain(Codec::Zstd(3));
        let alone: usize =
            json.iter().map(|(key, value)| compress(key, value, zstd3, None, 0).stored.len()).sum();
        let alone = raw as f64 / alone as f64;
        println!("zstd 3 without dictionary: {alone:.2}\n");
        println!(
            "| weights | common choice | own choices | raw / (stored + dictionaries twice) | of zstd 3 | changes in 9 more tunings | longest, s |"
        );
        println!("|---|---|---|---|---|---|---|");
        for weights in [Weights::Speed, Weights::Balanced, Weights::Space] {
            for _ in 0..if self.quick || weights == Weights::Speed { 1 } else { 3 } {
                let dir = tempfile::tempdir().expect("a directory");
                let cold =
                    ColdTier::open(config(dir.path(), Compression::Tuned).weights(weights)).expect("open");
                for (key, value) in json {
                    cold.insert(key, value).expect("insert");
                }
                let mut longest = tune(&cold).duration;
                cold.run(CompactionTask::CompactData).expect("compact");
                let stats = cold.stats();
                let total = stats.live_payload_bytes + stats.dictionary_bytes;
                let ratio = stats.live_raw_bytes as f64 / total as f64;
                let choice = cold.compression();
                let report = cold.explain().expect("read").expect("tuned");
                let own: Vec<String> =
                    report.classes.iter().filter(|it| it.is_own).map(|it| it.chosen.to_string()).collect();
                for it in report.common.candidates.iter().filter(|it| it.choice.dictionary_bytes > 0) {
                    eprintln!(
                        "{weights}: {}: ratio {:.2}, {:.0} ns to store, {:.0} ns to read, cost {:.0} ns",
                        it.choice, it.ratio, it.compress_ns, it.decompress_ns, it.cost_ns
                    );
                }
                let mut changes = 0;
                for _ in 1..10 {
                    let report = tune(&cold);
                    longest = longest.max(report.duration);
                    if report.changed {
                        changes += 1;
                        for class in report.classes.iter().chain([&*report.common]).filter(|it| it.changed) {
                            eprintln!("{:?}: {}", class.raw_bytes_max, class.reason);
                        }
                    }
                }
                println!(
                    "| {weights} | {choice} | {} | {ratio:.2} | {:.2} | {changes} | {:.2} |",
                    own.join(", "),
                    ratio / alone,
                    longest.as_secs_f64()
                );
            }
        }
    }
}

/// A way to store every value, by its class, under measurement.
struct Way {
    name: String,
    /// Codec, dictionary and gate.
    classes: Vec<(Codec, Option<usize>, bool)>,
    dictionaries: Vec<Dictionary>,
    /// Best times of each value: to store, to read.
    best_ns: Vec<(f64, f64)>,
    stored: usize,
}

impl Way {
    fn single(codec: Codec, dictionary: Option<&Vec<u8>>) -> Self {
        let level = if let Codec::Zstd(level) = codec { level } else { 1 };
        let dictionaries: Vec<Dictionary> = dictionary
            .map(|bytes| Dictionary::new(1, bytes.clone(), level).expect("trained"))
            .into_iter()
            .collect();
        let name = match dictionaries.first() {
            Some(dictionary) => format!("{codec} + {} KiB", dictionary.bytes().len().div_ceil(1024)),
            None => codec.to_string(),
        };
        let with = (!dictionaries.is_empty()).then_some(0);
        Self { name, classes: vec![(codec, with, false); 4], dictionaries, best_ns: Vec::new(), stored: 0 }
    }

    fn tuned(analysis: &Analysis) -> Self {
        let mut way =
            Self { name: String::new(), classes: vec![], dictionaries: vec![], best_ns: vec![], stored: 0 };
        let mut known: Vec<(usize, i8, usize)> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for class in &analysis.classes {
            let codec = class.chosen.codec;
            let dictionary = match (class.chosen.dictionary, codec) {
                (DictionarySource::Trained(at), Codec::Zstd(level)) => {
                    let found = known.iter().find(|it| (it.0, it.1) == (at, level)).map(|it| it.2);
                    Some(found.unwrap_or_else(|| {
                        let bytes = analysis.trained[at].clone();
                        way.dictionaries.push(Dictionary::new(1, bytes, level).expect("trained"));
                        known.push((at, level, way.dictionaries.len() - 1));
                        way.dictionaries.len() - 1
                    }))
                }
                _ => None,
            };
            way.classes.push((codec, dictionary, class.gate));
            let name = match dictionary {
                Some(at) => format!("{codec} + {} KiB", way.dictionaries[at].bytes().len().div_ceil(1024)),
                None => codec.to_string(),
            };
            let gate = if class.gate { " (gate)" } else { "" };
            let name = format!("{name}{gate}");
            if class.sampled_entries > 0 && !names.contains(&name) {
                names.push(name);
            }
        }
        way.name = names.join(", ");
        way
    }

    fn time(&mut self, tested: &[&Entry]) {
        self.best_ns.resize(tested.len().div_ceil(8), (f64::MAX, f64::MAX));
        self.stored = 0;
        for (run, best) in tested.chunks(8).zip(&mut self.best_ns) {
            let how = |raw_len: usize| {
                let (codec, dictionary, gate) = self.classes[class_of(raw_len)];
                let dictionary = dictionary.map(|at| &self.dictionaries[at]);
                let slot = dictionary.map_or(0, Dictionary::slot);
                (CompressionParameters { codec, dictionary: slot, gate }, dictionary)
            };
            let started = Instant::now();
            let mut stored: Vec<_> = run
                .iter()
                .map(|(key, value)| {
                    let (parameters, dictionary) = how(key.len() + value.len());
                    compress(key, value, parameters, dictionary, FRAME_ROOM)
                })
                .collect();
            best.0 = best.0.min(started.elapsed().as_nanos() as f64);
            self.stored += stored.iter().map(|it| it.stored.len() - FRAME_ROOM).sum::<usize>();
            let started = Instant::now();
            for (stored, (key, value)) in stored.iter_mut().zip(run) {
                let raw_len = key.len() + value.len();
                let dictionary = how(raw_len).1.filter(|_| stored.dictionary != 0);
                let mut out = Vec::new();
                decompress(stored.codec, dictionary, &mut stored.stored, raw_len, &mut out).expect("sound");
                std::hint::black_box(out);
            }
            best.1 = best.1.min(started.elapsed().as_nanos() as f64);
        }
    }

    /// The cost model of the analyzer.
    fn cost(&self, tested: &[&Entry], weights: Weights, live: usize) -> f64 {
        let count = tested.len() as f64;
        let store: f64 = self.best_ns.iter().map(|best| best.0).sum::<f64>() / count;
        let read: f64 = self.best_ns.iter().map(|best| best.1).sum::<f64>() / count;
        let dictionaries: usize = self.dictionaries.iter().map(|it| 2 * it.bytes().len()).sum();
        let bytes = self.stored as f64 / count + dictionaries as f64 / live as f64;
        (1.0 - READ_SHARE) * store + READ_SHARE * read + weights.byte_price_ns() * bytes
    }
}

fn analyze(samples: &[Sample], weights: Weights, live: u64) -> Analysis {
    let mut class_entries = [0; 4];
    for sample in samples {
        class_entries[class_of(sample.raw.len())] += live / samples.len() as u64;
    }
    let parameters = CompressionParameters::plain(Codec::Lz4);
    let dictionaries = DictionaryTable::new();
    let situation = Situation {
        read_share: READ_SHARE,
        class_entries,
        common: parameters,
        classes: [parameters; 4],
        dictionaries: &dictionaries,
        settled: false,
    };
    let analyzer = MemoryEfficiencyAnalyzer::new(weights, 5);
    analyzer.analyze(samples, situation, &mut |_| (), &|| false).expect("an analysis")
}

fn sample((key, value): &Entry) -> Sample {
    Sample { raw: [&key[..], value].concat(), key_len: key.len() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// As many of them as have this many bytes.
fn first_bytes<'a>(entries: &[&'a Entry], bytes_max: usize) -> Vec<&'a Entry> {
    let mut bytes = 0;
    let fits = |entry: &&&Entry| {
        bytes += entry.0.len() + entry.1.len();
        bytes <= bytes_max
    };
    entries.iter().take_while(fits).copied().collect()
}

fn bytes_of(entries: &[&Entry]) -> usize {
    entries.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn json_records() -> Vec<Entry> {
    let packed: &[u8] = include_bytes!("../data/mdn-compat.jsonl.zst");
    let text = String::from_utf8(zstd::decode_all(packed).expect("zstd")).expect("UTF-8");
    let entry = |line: &str| {
        let line = line.strip_prefix("{\"key\":\"").expect("key").strip_suffix('}').expect("end");
        let (key, value) = line.split_once("\",\"value\":").expect("value");
        (key.as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    text.lines().map(entry).collect()
}

/// The files under these directories with one of these endings, cut into values.
fn chunks(dirs: &[&Path], endings: &[&str], size: usize, bytes_max: usize) -> Vec<Entry> {
    let mut left: Vec<PathBuf> = dirs.iter().rev().map(|dir| dir.to_path_buf()).collect();
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(path) = left.pop() {
        if path.is_symlink() || bytes > bytes_max {
            continue;
        }
        if path.is_dir() {
            let mut found: Vec<PathBuf> = std::fs::read_dir(&path)
                .map(|all| all.flatten().map(|it| it.path()).collect())
                .unwrap_or_default();
            found.sort();
            left.extend(found);
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if !endings.contains(&&*ending) {
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads whatever files lie about")]
        let Ok(file) = std::fs::read(&path) else { continue };
        bytes += file.len();
        for (n, part) in file.chunks(size).enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            entries.push((format!("{name}:{n}").into_bytes(), part.to_vec()));
        }
    }
    entries
}

fn config(dir: &Path, compression: Compression) -> ColdTierConfig {
    ColdTierConfig::new(dir)
        .maintenance(Maintenance::Manual)
        .durability(Durability::Never)
        .compression(compression)
}

fn tune(cold: &ColdTier) -> TuningReport {
    match cold.run(CompactionTask::OptimizeCompression).expect("tune") {
        TaskReport::OptimizeCompression(report) => report,
        other => panic!("another task's report: {other:?}"),
    }
}

/// A store that holds such values and is tuned to them; `larder::Maintenance::Manual`, so that puts are all it does.
struct Puts {
    cold: ColdTier,
    _dir: tempfile::TempDir,
}

impl Puts {
    fn new(entries: &[Entry], compression: Compression) -> Self {
        let in_memory = tempfile::Builder::new().tempdir_in("/dev/shm");
        let dir = in_memory.or_else(|_| tempfile::tempdir()).expect("a directory");
        let cold = ColdTier::open(config(dir.path(), compression)).expect("open");
        let puts = Self { cold, _dir: dir };
        puts.put_all(entries);
        tune(&puts.cold);
        puts
    }

    fn put_all(&self, entries: &[Entry]) {
        for (key, value) in entries {
            self.cold.insert(key, value).expect("insert");
        }
        self.cold.flush().expect("flush");
    }

    /// CPU time of one put, all threads, in nanoseconds.
    fn cpu_ns(&self, entries: &[Entry]) -> f64 {
        let before = cpu_ns();
        self.put_all(entries);
        let spent = cpu_ns() - before;
        // What was there before is dead.
        self.cold.run(CompactionTask::CompactData).expect("compact");
        spent / entries.len() as f64
    }

    fn choices(&self) -> String {
        let report = self.cold.explain().expect("read").expect("tuned");
        let of = |class: &larder::ClassReport| match class.sampled_entries {
            0 => None,
            _ => Some(format!("{}{}", class.chosen, if class.gate { " (gate)" } else { "" })),
        };
        report.classes.iter().filter_map(of).collect::<Vec<_>>().join(", ")
    }
}

/// CPU time of this process so far, to the nanosecond, summed over its threads.
fn cpu_ns() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let of = |task: std::fs::DirEntry| {
        #[expect(clippy::disallowed_methods, reason = "not a file of a store")]
        let bytes = std::fs::read(task.path().join("schedstat")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0)
    };
    tasks.flatten().map(of).sum()
}
