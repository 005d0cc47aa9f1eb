//! For which service and region a request to an AWS host is signed.

use crate::host::Host;

/// The scope of an AWS signature, besides the day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningScope {
    /// The name that the service signs under: `s3`, `sqs`.
    pub service: String,
    /// The region: `eu-central-1`.
    pub region: String,
}

/// What stands before the region in hosts of a name of their own, and the name that is signed under.
const SIGNED_AS: [(&str, &str); 9] = [
    ("email", "ses"),
    ("queue", "sqs"),
    ("bedrock-runtime", "bedrock"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("ecr", "ecr"),
    ("sagemaker", "sagemaker"),
    ("s3-control", "s3"),
    ("streams.dynamodb", "dynamodb"),
];

/// Services without a region in their host, and the region that they are signed for.
const GLOBAL: [(&str, &str); 9] = [
    ("iam", "us-east-1"),
    ("sts", "us-east-1"),
    ("cloudfront", "us-east-1"),
    ("route53", "us-east-1"),
    ("organizations", "us-east-1"),
    ("support", "us-east-1"),
    ("budgets", "us-east-1"),
    ("ce", "us-east-1"),
    ("globalaccelerator", "us-west-2"),
];

impl SigningScope {
    /// Reads it from a host: `bucket.s3.dualstack.eu-central-1.amazonaws.com`, `sqs.eu-west-1.amazonaws.com`,
    /// `iam.amazonaws.com`. `None` where the host does not say.
    #[must_use]
    pub fn of(host: &Host) -> Option<Self> {
        let name = host.name()?;
        let rest = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))?;
        let labels: Vec<&str> = rest.split('.').filter(|label| *label != "dualstack").collect();
        s3(&labels).or_else(|| global(&labels)).or_else(|| regional(&labels))
    }

    /// Whether it is S3, whose rules for paths and bodies are its own.
    #[must_use]
    pub fn is_s3(&self) -> bool {
        matches!(self.service.as_str(), "s3" | "s3-outposts" | "s3-object-lambda")
    }

    fn new(service: &str, region: &str) -> Self {
        Self { service: service.to_owned(), region: region.to_owned() }
    }
}

/// `[bucket.]s3[.region]`, and the older `[bucket.]s3-region`. A bucket's name may have dots, and labels that look
/// like the service: what stands last counts.
fn s3(labels: &[&str]) -> Option<SigningScope> {
    match labels {
        [.., "s3" | "s3-fips", region] if is_region(region) => Some(SigningScope::new("s3", region)),
        [.., "s3"] => Some(SigningScope::new("s3", "us-east-1")),
        [.., last] => {
            let region = last.strip_prefix("s3-")?;
            is_region(region).then(|| SigningScope::new("s3", region))
        }
        [] => None,
    }
}

fn global(labels: &[&str]) -> Option<SigningScope> {
    let [service] = labels else { return None };
    let (service, region) = GLOBAL.iter().find(|(name, _)| name == service)?;
    Some(SigningScope::new(service, region))
}

/// `service.region`, with more before it or not: `sqs.eu-west-1`, `id.execute-api.eu-west-1`.
fn regional(labels: &[&str]) -> Option<SigningScope> {
    let [before @ .., region] = labels else { return None };
    let service = before.last()?;
    let service = service.strip_suffix("-fips").unwrap_or(service);
    if !is_region(region) || service.starts_with("s3") {
        return None; // s3express, s3-accesspoint and others sign in ways of their own
    }
    let signed_as = SIGNED_AS.iter().find(|(name, _)| *name == service).map_or(service, |(_, name)| name);
    Some(SigningScope::new(signed_as, region))
}

/// `eu-central-1`, `us-gov-west-1`.
fn is_region(label: &str) -> bool {
    let mut parts = label.split('-').rev();
    let is_number =
        parts.next().is_some_and(|last| last.len() <= 2 && last.bytes().all(|b| b.is_ascii_digit()));
    let words: Vec<&str> = parts.collect();
    is_number
        && matches!(words.len(), 2 | 3)
        && words.iter().all(|word| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_say_what_is_signed_for() {
        for (host, expected) in [
            ("s3.eu-central-1.amazonaws.com", "s3/eu-central-1"),
            ("bucket.s3.eu-central-1.amazonaws.com", "s3/eu-central-1"),
            ("my.dotted.bucket.s3.us-gov-west-1.amazonaws.com", "s3/us-gov-west-1"),
            ("sqs.s3.eu-west-1.amazonaws.com", "s3/eu-west-1"),
            ("bucket.s3.dualstack.eu-central-1.amazonaws.com", "s3/eu-central-1"),
            ("s3-fips.us-east-2.amazonaws.com", "s3/us-east-2"),
            ("bucket.s3-us-west-2.amazonaws.com", "s3/us-west-2"),
            ("s3.amazonaws.com", "s3/us-east-1"),
            ("bucket.s3.amazonaws.com", "s3/us-east-1"),
            ("s3.cn-north-1.amazonaws.com.cn", "s3/cn-north-1"),
            ("sqs.eu-west-1.amazonaws.com", "sqs/eu-west-1"),
            ("sqs.eu-west-1.api.aws", "sqs/eu-west-1"),
            ("dynamodb-fips.us-east-1.amazonaws.com", "dynamodb/us-east-1"),
            ("a1b2c3.execute-api.eu-west-1.amazonaws.com", "execute-api/eu-west-1"),
            ("email.eu-west-1.amazonaws.com", "ses/eu-west-1"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock/us-east-1"),
            ("iam.amazonaws.com", "iam/us-east-1"),
            ("sts.amazonaws.com", "sts/us-east-1"),
            ("sts.ap-southeast-2.amazonaws.com", "sts/ap-southeast-2"),
        ] {
            let scope = SigningScope::of(&Host::parse(host).unwrap()).unwrap_or_else(|| panic!("{host}"));
            assert_eq!(format!("{}/{}", scope.service, scope.region), expected, "{host}");
        }
    }

    #[test]
    fn hosts_that_do_not_say_are_not_guessed_at() {
        for host in [
            "bucket.s3-accelerate.amazonaws.com",
            "bucket--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com",
            "point-123.s3-accesspoint.eu-west-1.amazonaws.com",
            "amazonaws.com",
            "unknown.amazonaws.com",
            "sqs.somewhere.amazonaws.com",
            "s3.eu-central-1.amazonaws.com.evil.example",
            "s3.crm.test",
            "10.0.0.1",
        ] {
            assert_eq!(SigningScope::of(&Host::parse(host).unwrap()), None, "{host}");
        }
    }
}
