//! How many calls go to one destination at the same time. Pure: time is an argument.
//!
//! It grows by one for each round of successes while it is used, and falls by three tenths at a refusal or a timeout,
//! at most once for all calls that were on their way together. A ceiling from outside holds at once: a cluster that
//! shares a destination gives each node its part.

use crate::bounds::CONCURRENCY;

const ONE: u64 = 1000;
/// What is left after a refusal.
const CUT_MILLI: u64 = 700;

/// What a call says about the destination's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Answered.
    Success,
    /// 429, 503 or silence.
    Overloaded,
    /// Neither: stopped, refused for what it asked.
    Nothing,
}

/// A call that was let in.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is lost"]
pub struct Place {
    begun_ms: u64,
}

/// The limit of one destination.
#[derive(Debug, Clone)]
pub struct Limiter {
    limit_milli: u64,
    start: u32,
    most: u32,
    /// How often it fell.
    cuts: u64,
    ceiling: Option<u32>,
    running: u32,
    /// When all places were taken last: successes of calls that ran then show that there is room.
    full_ms: Option<u64>,
    /// Refusals of calls that began before say nothing new.
    cut_ms: Option<u64>,
    /// Nobody begins before: the destination said so.
    closed_until_ms: u64,
}

impl Limiter {
    /// Begins at `start` and never goes above `most`.
    pub fn new(start: u32, most: u32) -> Self {
        let most = most.clamp(1, CONCURRENCY);
        let start = start.clamp(1, most);
        Limiter {
            limit_milli: u64::from(start) * ONE,
            start,
            most,
            cuts: 0,
            ceiling: None,
            running: 0,
            full_ms: None,
            cut_ms: None,
            closed_until_ms: 0,
        }
    }

    /// What the cluster leaves to this node; 0 closes the destination here, None is no ceiling.
    pub fn set_ceiling(&mut self, ceiling: Option<u32>) {
        self.ceiling = ceiling;
    }

    /// Calls that may run now.
    pub fn limit(&self) -> u32 {
        let own = u32::try_from(self.limit_milli / ONE).unwrap_or(u32::MAX).clamp(1, self.most);
        self.ceiling.map_or(own, |ceiling| own.min(ceiling))
    }

    /// Where it began, how far it may grow.
    pub fn bounds(&self) -> (u32, u32) {
        (self.start, self.most)
    }

    /// How often it fell.
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    pub fn running(&self) -> u32 {
        self.running
    }

    /// How long nobody begins because the destination said so.
    pub fn closed_ms(&self, now_ms: u64) -> u64 {
        self.closed_until_ms.saturating_sub(now_ms)
    }

    /// A place, if there is one.
    pub fn begin(&mut self, now_ms: u64) -> Option<Place> {
        let free = self.closed_ms(now_ms) == 0 && self.running < self.limit();
        self.running += u32::from(free);
        if self.running >= self.limit() {
            self.full_ms = Some(now_ms);
        }
        free.then_some(Place { begun_ms: now_ms })
    }

    /// The place is given back. `retry_after_ms` is what the destination said, if it did.
    pub fn end(&mut self, place: Place, verdict: Verdict, retry_after_ms: Option<u64>, now_ms: u64) {
        let used = self.full_ms.is_some_and(|full| full >= place.begun_ms);
        self.running = self.running.saturating_sub(1);
        match verdict {
            Verdict::Success if used => self.grow(),
            Verdict::Success | Verdict::Nothing => (),
            Verdict::Overloaded => self.cut(&place, now_ms),
        }
        if let (Verdict::Overloaded, Some(after)) = (verdict, retry_after_ms) {
            self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(after));
        }
    }

    fn grow(&mut self) {
        let most = u64::from(self.ceiling.unwrap_or(self.most).clamp(1, self.most)) * ONE;
        // Not cut to a ceiling that came later: it may be lifted again.
        self.limit_milli = self.limit_milli.max((self.limit_milli + ONE * ONE / self.limit_milli).min(most));
    }

    fn cut(&mut self, place: &Place, now_ms: u64) {
        if self.cut_ms.is_some_and(|cut| place.begun_ms <= cut) {
            return;
        }
        self.cut_ms = Some(now_ms);
        self.cuts += 1;
        let from = self.limit_milli.min(u64::from(self.limit().max(1)) * ONE + ONE - 1);
        self.limit_milli = (from * CUT_MILLI / ONE).max(ONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a transcript: `TIME begin`, `TIME ok|overloaded [RETRY_AFTER_MS]|nothing`, `TIME ceiling N|none`. Each line gives
    /// `running/limit`; a begin without a place gives `full` or `closed MS`. Calls end in the order they began.
    fn play(start: u32, most: u32, script: &str) -> String {
        let mut limiter = Limiter::new(start, most);
        let mut places = std::collections::VecDeque::new();
        let mut told = Vec::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let (now, number) =
                (words[0].parse().expect("a time"), words.get(2).and_then(|n| n.parse::<u64>().ok()));
            let mut outcome = None;
            let verdict = match words[1] {
                "begin" => {
                    let place = limiter.begin(now);
                    outcome = place.is_none().then(|| match limiter.closed_ms(now) {
                        0 => "full".to_string(),
                        ms => format!("closed {ms}"),
                    });
                    places.extend(place);
                    None
                }
                "ceiling" => {
                    limiter.set_ceiling(number.map(|n| n as u32));
                    None
                }
                "ok" => Some(Verdict::Success),
                "overloaded" => Some(Verdict::Overloaded),
                "nothing" => Some(Verdict::Nothing),
                other => panic!("{other}"),
            };
            if let Some(verdict) = verdict {
                limiter.end(places.pop_front().expect("one runs"), verdict, number, now);
            }
            told.push(outcome.unwrap_or_else(|| format!("{}/{}", limiter.running(), limiter.limit())));
        }
        told.join(" ")
    }

    #[test]
    fn it_grows_by_one_for_a_round_of_successes_and_only_while_it_is_used() {
        let rounds = "0 begin\n0 begin\n0 begin\n1 ok\n1 begin\n2 ok\n2 begin\n2 begin\n3 begin";
        assert_eq!(play(2, 9, rounds), "1/2 2/2 full 1/2 2/2 1/2 2/2 full full");
        let more = "0 begin\n0 begin\n1 ok\n1 begin\n2 ok\n2 begin\n3 ok\n3 begin\n3 begin";
        assert_eq!(play(2, 9, more), "1/2 2/2 1/2 2/2 1/2 2/2 1/3 2/3 3/3");
        let idle = "0 begin\n1 ok\n2 begin\n3 ok\n4 begin\n5 ok\n6 begin\n7 ok";
        assert_eq!(
            play(2, 9, idle),
            "1/2 0/2 1/2 0/2 1/2 0/2 1/2 0/2",
            "one call at a time proves nothing of three"
        );
    }

    #[test]
    fn calls_that_were_refused_together_cut_once() {
        let script = "0 begin\n0 begin\n0 begin\n0 begin\n5 overloaded\n6 overloaded\n7 overloaded\n8 begin\n9 overloaded\n9 overloaded";
        assert_eq!(play(10, 10, script), "1/10 2/10 3/10 4/10 3/7 2/7 1/7 2/7 1/7 0/4");
        let down =
            "0 begin\n1 overloaded\n2 begin\n3 overloaded\n4 begin\n5 overloaded\n6 begin\n7 overloaded";
        assert_eq!(play(3, 9, down), "1/3 0/2 1/2 0/1 1/1 0/1 1/1 0/1", "never below one");
    }

    #[test]
    fn a_stated_time_closes_for_everybody_and_a_shorter_one_does_not_open() {
        let script = "0 begin\n0 begin\n10 overloaded 1000\n11 begin\n12 overloaded 5\n900 begin\n1010 begin";
        assert_eq!(play(4, 9, script), "1/4 2/4 1/2 closed 999 0/2 closed 110 1/2");
    }

    #[test]
    fn a_ceiling_holds_at_once_and_can_be_lifted() {
        let script = "0 begin\n0 begin\n0 ceiling 1\n1 begin\n2 ok\n3 ok\n4 begin\n5 ceiling 0\n6 ok\n7 begin\n8 ceiling none\n9 begin";
        assert_eq!(play(4, 9, script), "1/4 2/4 2/1 full 1/1 0/1 1/1 1/0 0/0 full 0/4 1/4");
    }

    /// A provider that takes `room` calls at a time and refuses the rest: the limit settles around it.
    #[test]
    fn it_finds_a_providers_room_and_follows_when_it_changes() {
        let mut limiter = Limiter::new(4, 256);
        let mean_over = |limiter: &mut Limiter, room: u32, from: u64| {
            let mut sum = 0;
            for round in from..from + 400 {
                let places: Vec<Place> = std::iter::from_fn(|| limiter.begin(round * 10)).collect();
                for (n, place) in places.into_iter().enumerate() {
                    let verdict = if (n as u32) < room { Verdict::Success } else { Verdict::Overloaded };
                    limiter.end(place, verdict, None, round * 10 + 5);
                }
                sum += u64::from(limiter.limit());
            }
            sum / 400
        };
        for (round, room) in [40, 10, 100].into_iter().enumerate() {
            let mean = mean_over(&mut limiter, room, round as u64 * 400);
            assert!(mean >= u64::from(room) * 6 / 10 && mean <= u64::from(room) * 12 / 10, "{room}: {mean}");
        }
    }
}
