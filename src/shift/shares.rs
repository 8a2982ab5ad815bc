//! Whole-number weights that give the desired shares.

#![expect(clippy::indexing_slicing, reason = "audited: indexes are positions of lists of one length")]

use crate::vocabulary::share::Share;

/// Totals to which weights are scaled when their own total cannot express the shares, smallest first.
const TOTALS: [u64; 3] = [100, 1_000, 10_000];

/// The share that a backend should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredShare {
    /// Exactly this share.
    Exact(Share),
    /// Its part of the rest, in proportion to this weight.
    Proportional(u64),
}

/// The weights for the desired shares, and their total. The total `now` is kept when it gives every exact share exactly
/// and the others theirs as exactly as possible; else the smallest of 100, 1000 and 10000 that does. Rounding is by
/// largest remainder; no backend with a share gets the weight 0.
pub fn weights_for_shares(now: u64, desired: &[DesiredShare]) -> (Vec<u64>, u64) {
    let exact_sum: u64 = desired
        .iter()
        .map(|share| if let DesiredShare::Exact(share) = share { u64::from(share.hundredths()) } else { 0 })
        .sum();
    let rest = u128::from(u64::from(Share::ALL.hundredths()).saturating_sub(exact_sum));
    let proportional_sum: u128 = desired
        .iter()
        .map(|share| if let DesiredShare::Proportional(weight) = share { u128::from(*weight) } else { 0 })
        .sum();
    // Every share as a fraction with one common denominator.
    let scale = proportional_sum.max(1);
    let denominator = u128::from(Share::ALL.hundredths()) * scale;
    let numerators: Vec<u128> = desired
        .iter()
        .map(|share| match share {
            DesiredShare::Exact(share) => u128::from(share.hundredths()) * scale,
            DesiredShare::Proportional(weight) => rest * u128::from(*weight),
        })
        .collect();
    let is_whole = |total: u64, numerator: u128| (numerator * u128::from(total)).is_multiple_of(denominator);
    let is_sufficient = |total: u64, all_exact: bool| {
        let is_exact = desired.iter().zip(&numerators).all(|(share, numerator)| {
            let must_be_whole = all_exact || matches!(share, DesiredShare::Exact(_));
            !must_be_whole || is_whole(total, *numerator)
        });
        let weights = apportion(total, &numerators, denominator);
        is_exact && weights.iter().zip(&numerators).all(|(weight, numerator)| *numerator == 0 || *weight > 0)
    };
    let totals = || std::iter::once(now).chain(TOTALS).filter(|total| *total > 0);
    let total = totals()
        .find(|total| is_sufficient(*total, true))
        .or_else(|| totals().find(|total| is_sufficient(*total, false)))
        .unwrap_or(TOTALS[TOTALS.len() - 1]);
    (apportion(total, &numerators, denominator), total)
}

/// Whole numbers that add up to `total`, by largest remainder; the first of equal remainders wins.
fn apportion(total: u64, numerators: &[u128], denominator: u128) -> Vec<u64> {
    let scaled = |numerator: &u128| *numerator * u128::from(total);
    let mut weights: Vec<u64> =
        numerators.iter().map(|numerator| u64::try_from(scaled(numerator) / denominator).unwrap_or(u64::MAX)).collect();
    let mut by_remainder: Vec<usize> = (0..numerators.len()).collect();
    by_remainder.sort_by_key(|index| std::cmp::Reverse(scaled(&numerators[*index]) % denominator));
    let remaining = total.saturating_sub(weights.iter().sum());
    for index in by_remainder.into_iter().take(usize::try_from(remaining).unwrap_or(usize::MAX)) {
        weights[index] += 1;
    }
    weights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_is_kept_when_it_gives_the_exact_shares() {
        use DesiredShare::{Exact, Proportional};
        for (now, desired, expected) in [
            (100, vec![Proportional(90), Exact(share("25"))], (vec![75, 25], 100)),
            (10, vec![Proportional(9), Exact(share("20"))], (vec![8, 2], 10)),
            (10, vec![Proportional(9), Exact(share("25"))], (vec![75, 25], 100)),
            (100, vec![Proportional(90), Exact(share("12.5"))], (vec![875, 125], 1000)),
            (100, vec![Proportional(90), Exact(share("0.01"))], (vec![9999, 1], 10_000)),
            (1, vec![Proportional(1), Exact(share("100"))], (vec![0, 1], 1)),
            // The others keep their proportion: 70 does not divide 2 to 1 in whole numbers.
            (100, vec![Proportional(60), Proportional(30), Exact(share("30"))], (vec![47, 23, 30], 100)),
            (100, vec![Proportional(60), Proportional(30), Exact(share("10"))], (vec![60, 30, 10], 100)),
            // 1 of 1000 must not be rounded to 0.
            (1000, vec![Proportional(999), Proportional(1), Exact(share("0"))], (vec![999, 1, 0], 1000)),
            (100, vec![Proportional(99), Proportional(1), Exact(share("50"))], (vec![495, 5, 500], 1000)),
        ] {
            assert_eq!(weights_for_shares(now, &desired), expected, "{now} {desired:?}");
        }
    }

    proptest! {
        #[test]
        fn exact_shares_are_exact_and_the_weights_add_up(
            now in 0_u64..5_000,
            first in 0_u32..=10_000,
            second in 0_u32..=10_000,
            rest in prop::collection::vec(1_u64..1_000, 1..6),
        ) {
            let first = Share::from_hundredths(first);
            let second = Share::from_hundredths(second.min(first.complement().hundredths()));
            let mut desired = vec![DesiredShare::Exact(first), DesiredShare::Exact(second)];
            desired.extend(rest.iter().map(|weight| DesiredShare::Proportional(*weight)));
            let (weights, total) = weights_for_shares(now, &desired);
            prop_assert_eq!(weights.iter().sum::<u64>(), total);
            for (index, share) in [first, second].into_iter().enumerate() {
                prop_assert_eq!(weights[index] * 10_000, u64::from(share.hundredths()) * total);
            }
            // The others are within 1 of their exact part.
            let exact_sum = Share::from_hundredths(first.hundredths() + second.hundredths());
            let (remaining, old_sum) = (u64::from(exact_sum.complement().hundredths()), rest.iter().sum::<u64>());
            for (weight, old) in weights[2..].iter().zip(&rest) {
                let exact = (remaining * old * total) as f64 / (10_000 * old_sum) as f64;
                prop_assert!((*weight as f64 - exact).abs() < 1.0 + 1e-9, "{} is not close to {}", weight, exact);
            }
        }
    }
}
