//! Which instructions the kernels use: chosen once, printed once, never guessed again.

use std::fmt;

/// A set of instructions that the kernels can run on. All give the same bits; they differ in speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the specification. Slow, and available everywhere.
    Scalar,
    /// 256-bit vectors with fused multiply-add and half-float conversion.
    Avx2,
    /// 512-bit vectors with int8 dot products (VNNI).
    Avx512,
    /// As above, and tile registers (AMX) where 16 rows of input meet quantised weights.
    Amx,
}

/// Why an instruction set could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsaError {
    /// The name is none of ours.
    Unknown(String),
    /// The name is ours, but this CPU lacks the instructions.
    Unavailable(Isa),
}

impl Isa {
    /// The wanted set by name, or the fastest that this CPU has.
    ///
    /// # Errors
    /// An unknown name, or a set that this CPU lacks; the message lists what can be asked for.
    pub fn pick(wanted: Option<&str>) -> Result<Isa, IsaError> {
        let Some(name) = wanted.map(str::trim).filter(|name| !name.is_empty()) else {
            return Ok(Isa::fastest());
        };
        let isa = Isa::named(name).ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        if isa.is_available() { Ok(isa) } else { Err(IsaError::Unavailable(isa)) }
    }

    /// Every set that this CPU has, slowest first. Never empty.
    pub fn available() -> Vec<Isa> {
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx].into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this CPU can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => has_avx2(),
            Isa::Avx512 => has_avx512(),
            Isa::Amx => has_amx(),
        }
    }

    fn fastest() -> Isa {
        Isa::available().into_iter().max().unwrap_or(Isa::Scalar)
    }

    fn named(name: &str) -> Option<Isa> {
        match name.to_ascii_lowercase().as_str() {
            "scalar" => Some(Isa::Scalar),
            "avx2" => Some(Isa::Avx2),
            "avx512" => Some(Isa::Avx512),
            "amx" => Some(Isa::Amx),
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    has_avx512() && crate::simd::amx::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        })
    }
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = Isa::available().iter().map(Isa::to_string).collect();
        let names = names.join(", ");
        match self {
            IsaError::Unknown(name) => {
                write!(f, "no kernels are called {name:?}; this CPU can run: {names}")
            }
            IsaError::Unavailable(isa) => {
                write!(f, "this CPU lacks the instructions of the {isa} kernels; it can run: {names}")
            }
        }
    }
}

impl std::error::Error for IsaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wanted_gives_the_fastest() {
        assert_eq!(Isa::pick(None), Ok(*Isa::available().last().unwrap()));
        assert_eq!(Isa::pick(Some(" ")), Isa::pick(None));
    }

    #[test]
    fn a_name_is_taken_as_given() {
        for isa in Isa::available() {
            assert_eq!(Isa::pick(Some(&isa.to_string().to_uppercase())), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_a_list() {
        let error = Isa::pick(Some("sse9")).unwrap_err();
        assert!(error.to_string().contains("sse9") && error.to_string().contains("scalar"), "{error}");
    }
}
