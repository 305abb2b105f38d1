//! Popularity as caches meet it: the k-th most popular key is asked for in proportion to k^-exponent.
//!
//! Drawn by W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6(3), 1996: exact, in constant time, without tables.

/// Ranks added up one by one; the sum of further ones is taken from the integral.
const SUMMED: u64 = 1 << 20;
/// A prime above every number of keys allowed: multiplied by it, neighbouring ranks are far apart, and none meet.
const SCATTER: u128 = 2_654_435_761;

/// Draws keys 0 to n - 1 by their popularity.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    count: u64,
    exponent: f64,
    low: f64,
    high: f64,
    /// A rank this close above its drawn value is taken without a further test.
    shortcut: f64,
}

impl Zipf {
    /// Of `count` keys (at least one) with an exponent above zero.
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self { count, exponent, low: 0.0, high: 0.0, shortcut: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(count as f64 + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// A key: popular ones lie anywhere among the others.
    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let u = self.high + random.f64() * (self.low - self.high);
            let x = self.inverse(u);
            let rank = x.round().clamp(1.0, self.count as f64);
            if rank - x <= self.shortcut || u >= self.integral(rank + 0.5) - self.weight(rank) {
                return (u128::from(rank as u64) * SCATTER % u128::from(self.count)) as u64;
            }
        }
    }

    /// Share of the requests that the `kept` most popular keys get.
    pub fn share_of_most_popular(&self, kept: u64) -> f64 {
        self.sum(kept.min(self.count)) / self.sum(self.count)
    }

    fn sum(&self, ranks: u64) -> f64 {
        let head: f64 = (1..=ranks.min(SUMMED)).map(|rank| self.weight(rank as f64)).sum();
        let tail = |to: u64| self.integral(to as f64 + 0.5);
        if ranks > SUMMED { head + tail(ranks) - tail(SUMMED) } else { head }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// Integral of x^-exponent from 1: (x^(1 - e) - 1) / (1 - e), and ln x where e is 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = (1.0 - self.exponent) * log;
        if power.abs() > 1e-8 { power.exp_m1() / power * log } else { (1.0 + power / 2.0) * log }
    }

    fn inverse(&self, y: f64) -> f64 {
        let t = (y * (1.0 - self.exponent)).max(-1.0);
        let ratio = if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 };
        (ratio * y).exp()
    }
}
