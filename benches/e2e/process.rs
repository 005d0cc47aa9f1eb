//! A proxy's process: pinned, watched through `/proc`, stopped.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// `/proc` counts CPU in hundredths of a second on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Which core the load and the provider run on, and which the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) load: usize,
    pub(crate) proxy: usize,
}

impl Cores {
    /// The first two cores this process may use, or why nothing is pinned.
    pub(crate) fn find() -> Result<Self, String> {
        let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
        let allowed = field(&status, "Cpus_allowed_list:").ok_or("/proc tells no cores")?;
        let ranges = allowed.split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
        });
        let mut cores = ranges.flatten();
        let (Some(load), Some(proxy)) = (cores.next(), cores.next()) else {
            return Err(format!("only one core to use ({allowed})"));
        };
        let pinned = Command::new("taskset").arg("-V").stdout(Stdio::null()).status();
        match pinned {
            Ok(status) if status.success() => Ok(Self { load, proxy }),
            _ => Err("no taskset (Debian package util-linux)".to_owned()),
        }
    }

    /// Pins this process, and with it every thread it starts from now on.
    pub(crate) fn pin_self(self) -> Result<()> {
        let pinned = Command::new("taskset")
            .args(["-cp", &self.load.to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status()?;
        pinned.success().then_some(()).context("taskset could not pin the load generator")
    }
}

/// `program` as a command that will run on the proxy's core. taskset becomes the program, so the pid is its.
pub(crate) fn pinned(program: &Path, cores: Option<Cores>) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &cores.proxy.to_string()]).arg(program);
    command
}

/// A started proxy; stopped when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// CPU time used so far, user and system, descendants (also reaped ones) included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let ticks: u64 = self.family()?.iter().map(|member| member.ticks).sum();
        Ok(TICK * u32::try_from(ticks)?)
    }

    /// Resident memory of the process and its descendants, MB (10^6 bytes).
    pub(crate) fn rss(&self) -> Result<f64> {
        let mut kibibytes = 0.0;
        for member in self.family()? {
            let status = fs::read_to_string(format!("/proc/{}/status", member.pid)).unwrap_or_default();
            let value = field(&status, "VmRSS:").and_then(|value| value.split(' ').next());
            kibibytes += value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        }
        Ok(kibibytes * 1024.0 / 1e6)
    }

    /// What the process itself holds.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let megabytes = |name: &str| {
            let value = field(&status, name).and_then(|value| value.split(' ').next()?.parse::<f64>().ok());
            value.map(|kibibytes| kibibytes * 1024.0 / 1e6).context("/proc tells no memory")
        };
        Ok(Memory { resident: megabytes("VmRSS:")?, own: megabytes("RssAnon:")? })
    }

    fn family(&self) -> Result<Vec<Stat>> {
        let everyone: Vec<Stat> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Stat::read)
            .collect();
        let mut pids = vec![self.0.id()];
        let mut next = 0;
        while let Some(parent) = pids.get(next).copied() {
            pids.extend(everyone.iter().filter(|one| one.parent == parent).map(|one| one.pid));
            next += 1;
        }
        let family: Vec<Stat> = everyone.into_iter().filter(|one| pids.contains(&one.pid)).collect();
        (!family.is_empty()).then_some(family).context("the process has ended")
    }
}

/// Resident memory, MB (10^6 bytes).
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// What is no page of a file.
    pub(crate) own: f64,
}

impl Drop for Process {
    /// Asks, waits two seconds, insists.
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).map(Pid::from_raw);
        let asked = pid.is_ok_and(|pid| kill(pid, Signal::SIGTERM).is_ok());
        let until = Instant::now() + Duration::from_secs(2);
        while asked && Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What one line of `/proc/PID/stat` says (proc(5)).
struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command is in parentheses and may hold anything; field 3 follows the last one.
        let rest: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let parent = rest.get(1)?.parse().ok()?;
        // utime, stime, cutime, cstime are fields 14 to 17.
        let ticks = rest.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { pid, parent, ticks })
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Runnable processes of the last minute, for the warning that others are working on this machine.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
