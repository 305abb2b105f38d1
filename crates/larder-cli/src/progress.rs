//! Progress bars on stderr: only for people, only on a terminal, in colour unless NO_COLOR says no.
//!
//! `run_task` runs a maintenance task in a scoped thread, which borrows the store, while this thread draws its progress
//! and passes a signal on to it.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder::{ColdTier, CompactionTask, TaskReport};

use crate::glance::Work;
use crate::interrupt;
use crate::output::Output;

const STEP: Duration = Duration::from_millis(40);
/// Bar length of something that reports its progress from 0 to 1.
const WHOLE: u64 = 1000;

fn bar(length: Option<u64>, output: &Output, plain: &'static str, coloured: &'static str) -> ProgressBar {
    let hidden = !output.for_people();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(15) };
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let template = if no_color { plain } else { coloured };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, target).with_style(style)
}

/// A bar for something that reports its progress from 0 to 1; drive it with [`set_share`].
pub fn share_bar(label: &str, output: &Output) -> ProgressBar {
    let plain = "{prefix:22} {wide_bar} {percent:>3} % {msg} {elapsed:>4}";
    let coloured = "{prefix:22} {wide_bar:.cyan/blue} {percent:>3} % {msg} {elapsed:>4}";
    bar(Some(WHOLE), output, plain, coloured).with_prefix(label.to_owned())
}

/// Moves a [`share_bar`]. Never back.
pub fn set_share(bar: &ProgressBar, share: f32) {
    let position = (share.clamp(0.0, 1.0) * WHOLE as f32) as u64;
    bar.set_position(position.max(bar.position()));
}

/// A bar over the bytes of an input; without `total` a spinner. The message counts what was made of them.
pub fn input_bar(label: &str, total: Option<u64>, output: &Output) -> ProgressBar {
    match total {
        Some(_) => {
            let plain = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {msg} {eta:>4}";
            let coloured =
                "{prefix} {wide_bar:.cyan/blue} {binary_bytes}/{binary_total_bytes} {msg} {eta:>4}";
            bar(total, output, plain, coloured).with_prefix(label.to_owned())
        }
        None => {
            let plain = "{prefix} {spinner} {binary_bytes} {msg} {elapsed:>4}";
            bar(None, output, plain, "{prefix} {spinner:.cyan} {binary_bytes} {msg} {elapsed:>4}")
                .with_prefix(label.to_owned())
        }
    }
}

/// Runs a task to its end, shows its progress, and cancels it when a signal asks to stop.
///
/// # Errors
/// Those of `ColdTier::run`; a cancelled task is `ErrorKind::Cancelled`.
pub fn run_task(
    store: &ColdTier,
    task: CompactionTask,
    label: &str,
    output: &Output,
) -> larder::Result<TaskReport> {
    attend(store, label, output, |state_of| *state_of == task, || store.run(task))
}

/// Runs whatever maintenance is due, shows its progress, and cancels it when a signal asks to stop.
///
/// # Errors
/// Those of `ColdTier::run_due`; a cancelled task is `ErrorKind::Cancelled`.
pub fn run_due(store: &ColdTier, output: &Output) -> larder::Result<u64> {
    attend(store, "maintaining", output, |_| false, || store.run_due())
}

/// Does `work` in a scoped thread, which borrows the store, and looks at the store meanwhile. The bar follows the tasks
/// that `shown` picks, and stands still otherwise.
fn attend<T: Send>(
    store: &ColdTier,
    label: &str,
    output: &Output,
    shown: impl Fn(&CompactionTask) -> bool,
    work: impl FnOnce() -> T + Send,
) -> T {
    let bar = share_bar(label, output);
    let (done_tx, done_rx) = bounded(1);
    let result = thread::scope(|scope| {
        let worker = scope.spawn(move || done_tx.send(work()));
        let result = loop {
            match done_rx.recv_timeout(STEP) {
                Ok(result) => break Some(result),
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => watch(store, &shown, &bar),
            }
        };
        match worker.join() {
            Ok(_) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    bar.finish_and_clear();
    result.expect("a task's thread sends its result or panics")
}

/// One look at a running task.
fn watch(store: &ColdTier, shown: &impl Fn(&CompactionTask) -> bool, bar: &ProgressBar) {
    if interrupt::requested() {
        store.cancel();
    }
    let state = store.compaction_state();
    if state.task().as_ref().is_some_and(shown) {
        set_share(bar, state.progress());
        bar.set_message(Work::of(state).left());
    }
    bar.tick();
}

/// Waits until `deadline`, with a bar; returns early when a signal asks to stop.
pub fn wait_until(deadline: Instant, label: &str, output: &Output) {
    let bar = share_bar(label, output);
    let started = Instant::now();
    let whole = deadline.saturating_duration_since(started).as_secs_f32();
    while !interrupt::requested() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        set_share(&bar, 1.0 - left.as_secs_f32() / whole);
        thread::sleep(left.min(STEP));
    }
    bar.finish_and_clear();
}
