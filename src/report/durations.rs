//! Many durations in memory that does not grow with them: quantiles, and where they stand together.

/// Durations in buckets of about 3 %, so that memory does not grow with the number of calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations {
    /// Counts by bucket; as long as the longest duration asks.
    buckets: Vec<u64>,
    count: u64,
}

impl Durations {
    /// Counts one, in milliseconds.
    #[inline]
    pub(super) fn add(&mut self, millis: u64) {
        let at = bucket(millis);
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets[at] += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes in what was counted elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
    }

    /// The duration below which a share of the calls stays, in milliseconds.
    pub(super) fn quantile(&self, share: f64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= wanted).then(|| roundest(bucket))
        })
    }

    /// Where most cases stand together, with how many: a time limit shows itself so. What is counted lies within 5 %.
    pub(super) fn cluster(&self) -> Option<(u64, u64)> {
        let at = self.quantile(0.5)?;
        let buckets = self.buckets.iter().enumerate();
        // A duration differs from the middle of its bucket by less than 2 %.
        let is_near = |bucket: usize| middle(bucket).abs_diff(at) <= at / 100 * 3 + at % 100 * 3 / 100;
        Some((at, buckets.filter(|(bucket, _)| is_near(*bucket)).map(|(_, count)| count).sum()))
    }
}

/// 32 buckets for each doubling; exact below 32 ms.
#[inline]
fn bucket(millis: u64) -> usize {
    if millis < 32 {
        return usize::try_from(millis).unwrap_or(0);
    }
    let exponent = millis.ilog2();
    let mantissa = (millis >> (exponent - 5)) & 31;
    usize::try_from((u64::from(exponent) - 4) * 32 + mantissa).unwrap_or(usize::MAX)
}

/// First and last duration of a bucket.
fn range(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < 32 {
        return (bucket, bucket);
    }
    let exponent = bucket / 32 + 4;
    let step = 1_u64 << (exponent - 5);
    let first = (1_u64 << exponent) + bucket % 32 * step;
    (first, first + (step - 1))
}

fn middle(bucket: usize) -> u64 {
    let (first, last) = range(bucket);
    first + (last - first) / 2
}

/// The roundest number in a bucket: it says no more, and limits are round.
fn roundest(bucket: usize) -> u64 {
    let (first, last) = range(bucket);
    let multiple = |unit: u64| Some(last / unit * unit).filter(|number| *number >= first && *number > 0);
    let units = (0..20).rev().map(|zeros| 10_u64.pow(zeros)).flat_map(|unit| [unit.saturating_mul(5), unit]);
    units.filter(|unit| *unit <= last).find_map(multiple).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_3_percent_and_round_where_that_allows() {
        for millis in (1..5_000).chain([30_000, 59_999, 60_000, 300_000, 300_999, 3_600_000, u64::MAX / 2, u64::MAX]) {
            let mut durations = Durations::default();
            durations.add(millis);
            let said = durations.quantile(0.5).unwrap();
            assert!(said.abs_diff(millis) <= millis / 100 * 3 + millis % 100 * 3 / 100 + 1, "{millis}: {said}");
        }
        for (millis, wanted) in [(104, 105), (1_055, 1_050), (15_003, 15_000), (300_140, 300_000), (999, 1_000)] {
            let mut durations = Durations::default();
            durations.add(millis);
            assert_eq!(durations.quantile(0.5), Some(wanted), "{millis}");
        }
    }
}
