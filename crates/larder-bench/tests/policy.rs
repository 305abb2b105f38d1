//! Policy by counts: small runs with a fixed seed, held against recorded bounds. They depend on no machine's speed, so a
//! policy that writes more, keeps more or gives back later fails here.
//!
//! The bounds are what is true today and a little; a better policy tightens them. What the figures have to be in the
//! end, at full size, is in `src/bars.rs`.

use std::path::Path;

use larder_bench::figures::{Figures, figure, figures};
use larder_bench::simulate::{Outcome, simulate};
use larder_bench::ttl::TtlSet;
use larder_bench::workload::{Options, Plan, Workload};

/// (workload, times to live, scale, [(figure, at least, at most)]).
type Bounds = (Workload, Option<TtlSet>, f64, &'static [(&'static str, f64, f64)]);

const BOUNDS: &[Bounds] = &[
    (
        Workload::TtlOnly,
        None,
        0.05,
        &[
            // At full size 1.02 is the bar; here segments are 64 KiB.
            ("written_amplification", 1.0, 1.05),
            ("space_amplification", 1.0, 1.23),
            ("space_amplification_max", 1.0, 1.53),
            ("reclaim_p50_ms", 0.0, 470_000.0),
            ("reclaim_p99_ms", 0.0, 2_800_000.0),
            ("snapshot_share_max", 0.0, 0.12),
            ("record_bytes_read_by_cleanup", 0.0, 0.0),
        ],
    ),
    (
        Workload::TtlOnly,
        Some(TtlSet::Cluster10),
        0.05,
        &[
            ("written_amplification", 1.0, 1.02),
            ("space_amplification", 1.0, 1.15),
            ("space_amplification_max", 1.0, 1.39),
            ("reclaim_p99_ms", 0.0, 2_350_000.0),
            ("record_bytes_read_by_cleanup", 0.0, 0.0),
        ],
    ),
    (
        Workload::TtlMixed,
        Some(TtlSet::Cluster6),
        0.05,
        &[
            ("written_amplification", 1.0, 1.10),
            // Steps of five seconds and segments of 64 KiB: much of it is waiting for its last record.
            ("space_amplification", 1.0, 1.55),
            ("reclaim_p99_ms", 0.0, 190_000.0),
        ],
    ),
    (
        Workload::Uniform,
        None,
        0.0625,
        &[
            ("written_amplification", 1.0, 2.9),
            // Segments of 64 KiB: blocks and part-full outputs count.
            ("space_amplification", 1.0, 1.37),
            ("space_amplification_max", 1.0, 1.42),
            ("snapshot_share_max", 0.0, 0.12),
        ],
    ),
    (
        Workload::NinetyTen,
        None,
        0.0625,
        &[
            ("written_amplification", 1.0, 1.75),
            ("space_amplification", 1.0, 1.37),
            ("space_amplification_max", 1.0, 1.42),
            ("snapshot_share_max", 0.0, 0.12),
        ],
    ),
    (
        Workload::ZipfCapacity,
        None,
        0.1,
        &[
            ("hit_ratio_fifo", 0.53, 0.57),
            ("hit_ratio_over_fifo", 1.05, 1.3),
            ("written_amplification", 1.0, 1.25),
        ],
    ),
    (
        Workload::DeleteAll,
        None,
        0.1,
        &[
            ("segments_after_delete", 0.0, 2.0),
            // 0 is the bar.
            ("segments_over_bound", -2.0, 5.0),
            ("disk_bytes_after_delete", 0.0, 2_100_000.0),
        ],
    ),
];

fn run(workload: Workload, ttl_set: Option<TtlSet>, scale: f64) -> (Figures, Outcome) {
    let options = Options { ttl_set, scale, ..Options::default() };
    let outcome = simulate(workload, &options).expect("the simulated store works");
    (figures(&Plan::new(workload, &options, Path::new("/")), &options, &outcome), outcome)
}

#[test]
fn figures_stay_within_their_bounds() {
    let mut missed = Vec::new();
    for (workload, ttl_set, scale, bounds) in BOUNDS {
        let (figures, _) = run(*workload, *ttl_set, *scale);
        println!("{} {ttl_set:?}: {figures:?}", workload.name());
        for always in ["wrong", "lost", "unreadable_segments"] {
            assert_eq!(figure(&figures, always), Some(0.0), "{always} of {}", workload.name());
        }
        for (name, least, most) in *bounds {
            let value = figure(&figures, name).expect("every bound names a figure");
            if !(*least..=*most).contains(&value) {
                missed.push(format!(
                    "{} {ttl_set:?}: {name} is {value}, outside {least} to {most}",
                    workload.name()
                ));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_counts() {
    // Not `zipf-capacity`: its evictions run while the requests do.
    for (workload, ttl_set, scale) in [
        (Workload::Uniform, None, 0.02),
        (Workload::DeleteAll, None, 0.05),
        (Workload::TtlOnly, None, 0.02),
        (Workload::TtlMixed, Some(TtlSet::Cluster6), 0.05),
    ] {
        let (first, one) = run(workload, ttl_set, scale);
        let (second, other) = run(workload, ttl_set, scale);
        assert_eq!(first, second, "{}", workload.name());
        assert_eq!(one.samples, other.samples, "{}", workload.name());
        assert_eq!(one.gauges, other.gauges, "{}", workload.name());
        assert_eq!(one.totals, other.totals, "{}", workload.name());
        assert_eq!(one.reclaimed, other.reclaimed, "{}", workload.name());
        assert_eq!(one.read_by_cleanup, other.read_by_cleanup, "{}", workload.name());
        assert!(one.answers.gets > 0 && one.answers.puts > 0);
    }
}

#[test]
fn another_seed_gives_other_operations() {
    let run = |seed| simulate(Workload::Uniform, &Options { seed, scale: 0.02, ..Options::default() });
    let (one, other) = (run(1).expect("it runs"), run(2).expect("it runs"));
    assert_ne!(one.answers, other.answers);
}
