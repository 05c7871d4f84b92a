//! GPUs through NVIDIA's management library, which is loaded at run time where there is one.
//!
//! Its calls may take milliseconds, and may hang on a lost GPU, so they happen on a thread of their own and
//! whoever asks gets the latest sample. A machine without a driver is said once in the log, and looked at
//! again now and then, because a driver may be installed or come back.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use proto::v1::Gpu;

const PACE: Pace = Pace {
    sample: Duration::from_secs(2),
    look_again: Duration::from_secs(60),
    forget: Duration::from_secs(15),
};

/// How often things happen.
#[derive(Clone, Copy)]
struct Pace {
    /// Between samples.
    sample: Duration,
    /// Between looks for a driver where there was none.
    look_again: Duration,
    /// A sample older than this is not shown: the library hangs.
    forget: Duration,
}

/// Something that knows GPUs. An error means that it must be opened again.
trait Source: Send {
    fn sample(&mut self) -> Result<Vec<Gpu>, String>;
}

type Open = Box<dyn FnMut() -> Result<Box<dyn Source>, String> + Send>;
type Latest = Arc<Mutex<Option<(Instant, Vec<Gpu>)>>>;

/// The GPUs of this machine, sampled until this is dropped.
pub struct Gpus {
    latest: Latest,
    forget: Duration,
    /// Dropping it ends the thread.
    _stop: mpsc::Sender<()>,
}

impl Gpus {
    pub fn start() -> Gpus {
        Gpus::start_with(PACE, Box::new(|| Ok(Box::new(Library(Nvml::init().map_err(|e| e.to_string())?)))))
    }

    fn start_with(pace: Pace, open: Open) -> Gpus {
        let latest = Latest::default();
        let (stop, stopped) = mpsc::channel();
        let ours = latest.clone();
        let started = std::thread::Builder::new()
            .name("gpus".into())
            .spawn(move || Sampler { pace, open, latest: ours, stopped, complained: false }.run());
        if let Err(error) = started {
            tracing::warn!(%error, "GPUs are not watched: no thread could be started");
        }
        Gpus { latest, forget: pace.forget, _stop: stop }
    }

    /// The latest sample; empty without GPUs, before the first sample, and while the library hangs.
    pub fn latest(&self) -> Vec<Gpu> {
        match &*self.latest.lock().expect("storing a sample does not panic") {
            Some((taken, gpus)) if taken.elapsed() < self.forget => gpus.clone(),
            _none_or_old => Vec::new(),
        }
    }
}

struct Sampler {
    pace: Pace,
    open: Open,
    latest: Latest,
    stopped: mpsc::Receiver<()>,
    complained: bool,
}

impl Sampler {
    fn run(mut self) {
        loop {
            let reason = match (self.open)() {
                Ok(source) => self.sample_until_error(source),
                Err(reason) => Some(reason),
            };
            let Some(reason) = reason else { return };
            self.complain_once(&reason);
            if self.stops_within(self.pace.look_again) {
                return;
            }
        }
    }

    /// None when it was told to stop, else why the source is of no use any more.
    fn sample_until_error(&mut self, mut source: Box<dyn Source>) -> Option<String> {
        loop {
            match source.sample() {
                Ok(gpus) => {
                    *self.latest.lock().expect("storing a sample does not panic") =
                        Some((Instant::now(), gpus));
                }
                Err(reason) => return Some(reason),
            }
            if self.stops_within(self.pace.sample) {
                return None;
            }
        }
    }

    fn stops_within(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    fn complain_once(&mut self, reason: &str) {
        if !self.complained {
            self.complained = true;
            tracing::info!(reason, "no NVIDIA GPU is watched on this machine");
        }
    }
}

struct Library(Nvml);

impl Source for Library {
    fn sample(&mut self) -> Result<Vec<Gpu>, String> {
        let count = self.0.device_count().map_err(|error| error.to_string())?;
        // A device that is lost does not hide the others.
        Ok((0..count)
            .filter_map(|index| self.0.device_by_index(index).ok())
            .map(|device| gpu(&device))
            .collect())
    }
}

fn gpu(device: &nvml_wrapper::Device<'_>) -> Gpu {
    let memory = device.memory_info().ok();
    Gpu {
        uuid: device.uuid().ok(),
        name: device.name().ok(),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        power_milliwatts: device.power_usage().ok(),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const FAST: Pace = Pace {
        sample: Duration::from_millis(1),
        look_again: Duration::from_millis(1),
        forget: Duration::from_secs(60),
    };

    fn named(name: &str) -> Vec<Gpu> {
        vec![Gpu { name: Some(name.into()), ..Gpu::default() }]
    }

    /// Waits, with a deadline, until the latest sample is the expected one.
    fn wait_for(gpus: &Gpus, expected: &[Gpu]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while gpus.latest() != expected {
            assert!(Instant::now() < deadline, "{:?} did not become {expected:?}", gpus.latest());
            std::thread::yield_now();
        }
    }

    struct Script(VecDeque<Result<Vec<Gpu>, String>>);

    impl Source for Script {
        fn sample(&mut self) -> Result<Vec<Gpu>, String> {
            let last = self.0.len() == 1;
            let next = if last { self.0.front().cloned() } else { self.0.pop_front() };
            next.expect("a script has an end that repeats")
        }
    }

    #[test]
    fn a_driver_that_comes_late_and_goes_and_comes_back_is_found() {
        let mut opened = 0;
        let gpus = Gpus::start_with(
            FAST,
            Box::new(move || {
                opened += 1;
                match opened {
                    1..=3 => Err("no library".into()),
                    4 => Ok(Box::new(Script([Ok(named("first")), Err("lost".into())].into()))),
                    _ => Ok(Box::new(Script([Ok(named("second"))].into()))),
                }
            }),
        );
        wait_for(&gpus, &named("second"));
    }

    #[test]
    fn a_hanging_library_is_not_believed_for_ever() {
        let (release, hang) = mpsc::channel::<()>();
        let pace = Pace { forget: Duration::from_millis(50), ..FAST };
        struct Hangs(u32, mpsc::Receiver<()>);
        impl Source for Hangs {
            fn sample(&mut self) -> Result<Vec<Gpu>, String> {
                self.0 += 1;
                if self.0 > 1 {
                    let _released = self.1.recv();
                }
                Ok(named("there"))
            }
        }
        let mut hang = Some(hang);
        let gpus = Gpus::start_with(
            pace,
            Box::new(move || Ok(Box::new(Hangs(0, hang.take().ok_or("opened once")?)))),
        );
        wait_for(&gpus, &named("there"));
        wait_for(&gpus, &[]);
        drop(release);
    }

    #[test]
    fn the_real_library_or_its_absence_does_no_harm() {
        if let Ok(mut library) = Nvml::init().map(Library) {
            let gpus = library.sample().expect("a driver that loads answers");
            assert!(gpus.iter().all(|gpu| gpu.uuid.is_some()), "{gpus:?}");
        }
        assert!(Gpus::start().latest().len() < 64);
    }
}
