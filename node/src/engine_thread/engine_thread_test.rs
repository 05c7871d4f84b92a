//! The thread around an engine that a test makes up: it says the prompt's tokens back, one a step.

use super::*;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Echo {
    open: BTreeMap<u64, (Job, Vec<u32>)>,
    told: VecDeque<(u64, JobEvent)>,
    last_id: u64,
    steps: u64,
    /// Says this token for ever instead of the prompt.
    endless: bool,
}

impl Steps for Echo {
    fn enter_thread(&self) {}

    fn submit(&mut self, job: Job) -> Result<u64, RefusedJob> {
        if job.tokens.is_empty() {
            return Err(RefusedJob { why: "the prompt is empty".into(), retriable: false });
        }
        self.last_id += 1;
        self.open.insert(self.last_id, (job, Vec::new()));
        Ok(self.last_id)
    }

    fn cancel(&mut self, id: u64) {
        if let Some((job, said)) = self.open.remove(&id) {
            self.told.push_back((id, end(JobEnd::Cancelled, &job, said)));
        }
    }

    fn step(&mut self) -> Vec<(u64, JobEvent)> {
        self.steps += 1;
        let mut events: Vec<(u64, JobEvent)> = self.told.drain(..).collect();
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            let (job, said) = self.open.get_mut(&id).expect("listed");
            let token = job.tokens[if self.endless { 0 } else { said.len() }];
            assert_ne!(token, 666, "a planted panic");
            said.push(token);
            events.push((id, JobEvent::Token { token, text: token.to_string(), logprobs: None }));
            let all = !self.endless && said.len() == job.tokens.len();
            if all || said.len() == job.max_new as usize {
                let (job, said) = self.open.remove(&id).expect("listed");
                events.push((id, end(if all { JobEnd::Stop } else { JobEnd::Length }, &job, said)));
            }
        }
        events
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.told.is_empty()
    }

    fn observe(&self) -> EngineObserved {
        EngineObserved {
            sequences: self.open.len() as u64,
            tokens_computed: self.steps,
            ..EngineObserved::default()
        }
    }
}

fn end(why: JobEnd, job: &Job, said: Vec<u32>) -> JobEvent {
    let text = said.iter().map(u32::to_string).collect();
    let prompt_tokens = job.tokens.len() as u64;
    JobEvent::End { why, text, tokens: said, prompt_tokens, cached_tokens: 0, waited_ms: 0 }
}

fn job(tokens: &[u32], max_new: u32) -> Job {
    Job { tokens: tokens.to_vec(), max_new, ..Job::default() }
}

async fn next(running: &mut RunningJob) -> Option<JobEvent> {
    timeout(DEADLINE, running.events.recv()).await.expect("an event in time")
}

async fn all(mut running: RunningJob) -> Vec<JobEvent> {
    let mut events = Vec::new();
    while let Some(event) = next(&mut running).await {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_job_gives_its_tokens_and_one_end() {
    let thread = EngineThread::start("test", Echo::default()).unwrap();
    let never = CancellationToken::new();
    let (one, two) =
        (thread.run(job(&[1, 2], 9), &never).unwrap(), thread.run(job(&[3, 4, 5], 2), &never).unwrap());
    let (one, two) = (all(one).await, all(two).await);
    assert_eq!(one.len(), 3);
    assert!(matches!(&one[2], JobEvent::End { why: JobEnd::Stop, text, .. } if text == "12"));
    assert!(matches!(&two[2], JobEvent::End { why: JobEnd::Length, tokens, .. } if *tokens == [3, 4]));
}

#[tokio::test]
async fn an_idle_engine_sleeps_and_wakes() {
    let thread = EngineThread::start("test", Echo::default()).unwrap();
    let never = CancellationToken::new();
    all(thread.run(job(&[1, 2, 3], 9), &never).unwrap()).await;
    let steps = thread.observe().tokens_computed;
    assert!(steps <= 4, "three tokens took {steps} steps");
    all(thread.run(job(&[1], 9), &never).unwrap()).await;
    assert_eq!(thread.observe().tokens_computed, steps + 1, "it did not step while there was nothing to do");
}

#[tokio::test]
async fn stopping_and_dropping_cancel() {
    let thread = EngineThread::start("test", Echo { endless: true, ..Echo::default() }).unwrap();
    let stop = CancellationToken::new();
    let mut running = thread.run(job(&[1], 1 << 30), &stop).unwrap();
    let dropped = thread.run(job(&[2], 1 << 30), &CancellationToken::new()).unwrap();
    assert!(matches!(next(&mut running).await, Some(JobEvent::Token { .. })));
    stop.cancel();
    let events = all(running).await;
    assert!(matches!(events.last(), Some(JobEvent::End { why: JobEnd::Cancelled, .. })));
    drop(dropped);
    let emptied = async {
        while thread.observe().sequences > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, emptied).await.expect("a dropped job leaves the engine");
}

#[tokio::test]
async fn refusals_and_panics_are_told() {
    let thread = EngineThread::start("test", Echo::default()).unwrap();
    let never = CancellationToken::new();
    let refused = all(thread.run(job(&[], 9), &never).unwrap()).await;
    assert!(matches!(&refused[..], [JobEvent::Refused(why)] if why.why.contains("empty") && !why.retriable));
    let failed = all(thread.run(job(&[1, 666], 9), &never).unwrap()).await;
    assert!(matches!(failed.last(), Some(JobEvent::Refused(why)) if why.why.contains("failed")));
    let gone = async {
        // The thread ends right after its last words.
        while thread.run(job(&[1], 9), &never).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, gone).await.expect("a failed engine takes no more jobs");
    assert!(!thread.is_alive());
}
