//! A histogram of durations with quantiles and clusters, in memory that does not depend on the number of calls.

/// A histogram with buckets that are about 3% wide.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations {
    /// Counts by bucket, up to the bucket of the longest duration.
    buckets: Vec<u64>,
    count: u64,
}

impl Durations {
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "the list was just made long enough")]
    pub(super) fn add(&mut self, millis: u64) {
        let bucket = bucket_of(millis);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (count, other_count) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += other_count;
        }
        self.count += other.count;
    }

    /// The duration in milliseconds that `quantile` (0 to 1) of the calls do not exceed, accurate to 3%.
    pub(super) fn quantile(&self, quantile: f64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a count is a count")]
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut cumulative = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, count)| {
            cumulative += count;
            (cumulative >= rank).then(|| roundest_number_in(bucket))
        })
    }

    /// The median, and the number of calls within 5% of it: a time limit shows up as such a cluster.
    pub(super) fn median_cluster(&self) -> Option<(u64, u64)> {
        let median = self.quantile(0.5)?;
        let buckets = self.buckets.iter().enumerate();
        // A duration differs from the middle of its bucket by less than 2%.
        let is_near =
            |bucket: usize| bucket_middle(bucket).abs_diff(median) <= median / 100 * 3 + median % 100 * 3 / 100;
        Some((median, buckets.filter(|(bucket, _)| is_near(*bucket)).map(|(_, count)| count).sum()))
    }
}

/// 32 buckets for each power of two; exact below 32 ms.
#[inline]
fn bucket_of(millis: u64) -> usize {
    if millis < 32 {
        return usize::try_from(millis).unwrap_or(0);
    }
    let exponent = millis.ilog2();
    let mantissa = (millis >> (exponent - 5)) & 31;
    usize::try_from((u64::from(exponent) - 4) * 32 + mantissa).unwrap_or(usize::MAX)
}

/// First and last duration of a bucket.
fn bucket_range(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < 32 {
        return (bucket, bucket);
    }
    let exponent = bucket / 32 + 4;
    let step = 1_u64 << (exponent - 5);
    let first = (1_u64 << exponent) + bucket % 32 * step;
    (first, first + (step - 1))
}

fn bucket_middle(bucket: usize) -> u64 {
    let (first, last) = bucket_range(bucket);
    first + (last - first) / 2
}

/// The roundest number in a bucket: configured limits are round, and a bucket is no more exact than that.
fn roundest_number_in(bucket: usize) -> u64 {
    let (first, last) = bucket_range(bucket);
    let multiple = |unit: u64| Some(last / unit * unit).filter(|number| *number >= first && *number > 0);
    let units = (0..20).rev().map(|zeros| 10_u64.pow(zeros)).flat_map(|unit| [unit.saturating_mul(5), unit]);
    units.filter(|unit| *unit <= last).find_map(multiple).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_round_numbers_within_3_percent() {
        for millis in (1..5_000).chain([30_000, 59_999, 60_000, 300_000, 300_999, 3_600_000, u64::MAX / 2, u64::MAX]) {
            let mut durations = Durations::default();
            durations.add(millis);
            let median = durations.quantile(0.5).unwrap();
            assert!(median.abs_diff(millis) <= millis / 100 * 3 + millis % 100 * 3 / 100 + 1, "{millis}: {median}");
        }
        for (millis, expected) in [(104, 105), (1_055, 1_050), (15_003, 15_000), (300_140, 300_000), (999, 1_000)] {
            let mut durations = Durations::default();
            durations.add(millis);
            assert_eq!(durations.quantile(0.5), Some(expected), "{millis}");
        }
    }
}
