//! `crds`: the custom resource definitions, made from the types.

use std::io::Write;

use kube::CustomResourceExt;
use saphyr::{Mapping, Scalar, Yaml, YamlEmitter};
use serde_json::Value;

use crate::config::{Crd, Crds};
use crate::k8s::crd::{BreakglassEscalation, ClusterConfig, MailProvider};

/// Prints the definitions, one YAML document each.
///
/// # Errors
/// When standard output is closed.
pub fn print(crds: &Crds) -> anyhow::Result<()> {
    let mut text = String::new();
    for name in &crds.names {
        let definition = match name {
            Crd::Mailproviders => MailProvider::crd(),
            Crd::Breakglassescalations => BreakglassEscalation::crd(),
            Crd::Clusterconfigs => ClusterConfig::crd(),
        };
        let value = serde_json::to_value(definition)?;
        YamlEmitter::new(&mut text).dump(&yaml(&value))?;
        text.push('\n');
    }
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn yaml(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Yaml::Value(Scalar::Integer(integer)),
            // Limits of a schema are written as 1.0.
            None => {
                let float = number.as_f64().unwrap_or_default();
                Yaml::Value(Scalar::FloatingPoint(float.into()))
            }
        },
        Value::String(text) => Yaml::Value(Scalar::String(text.as_str().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(fields) => {
            let mut mapping = Mapping::new();
            for (name, value) in fields {
                mapping.insert(Yaml::Value(Scalar::String(name.as_str().into())), yaml(value));
            }
            Yaml::Mapping(mapping)
        }
    }
}
