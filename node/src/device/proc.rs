//! Cores, memory and pressure from Linux's `/proc`.

use std::path::PathBuf;

use proto::v1::Device;

/// Reads below a folder that looks like `/proc`.
pub struct Proc {
    root: PathBuf,
}

impl Proc {
    pub fn new(root: impl Into<PathBuf>) -> Proc {
        Proc { root: root.into() }
    }

    /// A sample; GPUs are not known here.
    pub fn sample(&self) -> Device {
        let meminfo = self.read("meminfo");
        Device {
            cpus: cpus(&self.read("stat")),
            memory_bytes: kilobytes(&meminfo, "MemTotal:"),
            memory_free_bytes: kilobytes(&meminfo, "MemAvailable:"),
            cpu_pressure_milli: pressure_milli(&self.read("pressure/cpu")),
            memory_pressure_milli: pressure_milli(&self.read("pressure/memory")),
            gpus: Vec::new(),
            rss_bytes: kilobytes(&self.read("self/status"), "VmRSS:"),
        }
    }

    /// A file that cannot be read says nothing.
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

/// The lines `cpu0`, `cpu1`, ...: cores that are online.
fn cpus(stat: &str) -> Option<u32> {
    let is_core = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    u32::try_from(stat.lines().filter(is_core).count()).ok().filter(|cores| *cores > 0)
}

/// The value of a line like `MemTotal:  24684100 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The ten-second share of the line `some avg10=29.74 ...`, per cent, in thousandths.
fn pressure_milli(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let share = line.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?;
    let (whole, hundredths) = share.split_once('.')?;
    let hundredths: u32 = hundredths.get(..2)?.parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths).map(|share| share / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_like_proc_is_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("stat", "cpu  1 2 3\ncpu0 1\ncpu1 2\nintr 5\n");
        write("meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
        write("pressure/cpu", "some avg10=29.74 avg60=70.29 avg300=72.93 total=5\nfull avg10=0.00 total=0\n");
        write("self/status", "Name:\tx\nVmRSS:\t     300 kB\n");
        let expected = Device {
            cpus: Some(2),
            memory_bytes: Some(2 << 20),
            memory_free_bytes: Some(1 << 20),
            cpu_pressure_milli: Some(297),
            memory_pressure_milli: None,
            gpus: Vec::new(),
            rss_bytes: Some(300 << 10),
        };
        assert_eq!(Proc::new(root.path()).sample(), expected);
    }

    #[test]
    fn nothing_and_nonsense_are_unset() {
        assert_eq!(Proc::new("/no/such/folder").sample(), Device::default());
        assert_eq!(kilobytes("MemTotal: 99999999999999999999 kB", "MemTotal:"), None);
        assert_eq!(kilobytes("MemTotal: 18446744073709551615 kB", "MemTotal:"), None);
        for text in
            ["some avg10=x.yz", "some avg10=1", "some avg10=1.2", "some avg10=99999999.99", "full avg10=1.00"]
        {
            assert_eq!(pressure_milli(text), None, "{text}");
        }
    }
}
