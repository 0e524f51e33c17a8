# The rows about many waiting jobs, about disk and memory, and about whom others leave alone. Read by
# benches/run.

# ---- 10, 11, 17: a million waiting jobs of 100 providers; 95 of these are held and 5 deliver. The same
# with a thousand jobs runs beside it, idle while the other is measured.

rows_10_11_17() {
  local hold_port sink_port all jobs empty_kib
  jobs=$(pick 1000000 100000)
  free_port hold_port
  free_port sink_port
  holding_sink hold "$hold_port"
  all=$(providers 0 95 "$hold_port"; providers 95 5 "$sink_port")
  note "row 11: $jobs jobs were made in $(timed "$programs/bench-fill" "$work/many" "$jobs" 95 300) s, $(du -sm "$work/many" | cut -f1) MiB"
  if wants 11; then
    serve empty "$all"
    sleep 2
    empty_kib=$(of_process status empty VmRSS)
    unserve empty KILL
    opens "after a clean end" KILL
    opens "after a kill" TERM
    result 11
  fi
  if wants 10 || wants 17; then behind_many; fi
  stop many KILL
  rm -rf "$work/many"
  stop hold KILL
}

timed() {
  local begin=$EPOCHREALTIME
  "$@"
  calc "$EPOCHREALTIME - $begin" 1
}

# opens HOW SIGNAL: starts on the folder as it was left, looks, and ends with this signal
opens() {
  local begin=$EPOCHREALTIME seconds bytes
  serve many "$all"
  seconds=$(calc "$EPOCHREALTIME - $begin" 2)
  sleep 2
  bytes=$(calc "($(of_process status many VmRSS) - $empty_kib) * 1024 / $jobs" 0)
  stop many "$2"
  figure 11 "seconds to open with $jobs waiting jobs $1" "<= 10" "$seconds"
  figure 11 "bytes of memory for each of these jobs $1" "<= 400" "$bytes"
}

behind_many() {
  local round accepts=() deliveries=() p99s=() many few rates
  serve many "$all"
  "$programs/bench-fill" "$work/few" 1000 95 300
  serve few "$all"
  for ((round = 0; round < rounds; round++)); do
    if wants 10; then
      accepts_and_deliveries many
      many=$rates
      accepts_and_deliveries few
      few=$rates
      note "row 10: accepts and deliveries per second behind $jobs: $many; behind 1000: $few"
      accepts+=("$(calc "${many% *} / ${few% *}")")
      deliveries+=("$(calc "${many#* } / ${few#* }")")
    fi
    if wants 17; then
      sink sink "$sink_port"
      many=$(p99_of_others many 95 5)
      few=$(p99_of_others few 95 5)
      stop sink KILL
      note "row 17: 99th percentile behind $jobs: $many µs; behind 1000: $few µs"
      p99s+=("$(calc "$many / $few")")
    fi
  done
  unserve few KILL
  if wants 10; then
    figure 10 "accepts behind $jobs waiting jobs, to 1000" ">= 0.8" "${accepts[@]}"
    figure 10 "accept to 250 behind $jobs waiting jobs, to 1000" ">= 0.8" "${deliveries[@]}"
    result 10
  fi
  if wants 17; then
    figure 17 "99th percentile of accept behind $jobs waiting jobs, to 1000" "<= 1.5" "${p99s[@]}"
    result 17
  fi
}

# Into $rates.
accepts_and_deliveries() {
  local line seen count
  count=$(pick 20000 5000)
  sink sink "$sink_port"
  line=$(post "$1" first=95 providers=5 callers=64 bytes=4096 posts="$count")
  seen=$(sink_counts sink "$count" 120)
  stop sink KILL
  rates="$(field rate "$line") $(calc "$(field count "$seen") / ($(field last "$seen") - $(field begin "$line"))" 0)"
}

# ---- 12: what the kernel counts as written to the disk by the server (/proc/PID/io), for each byte of
# content that was accepted and delivered, until ten seconds after the last: the index follows later.

row_12() {
  local bytes count port round before written ratios
  for bytes in 4096 32768; do
    ratios=()
    for ((round = 0; round < rounds; round++)); do
      count=$(pick 20000 2000)
      ((bytes == 4096)) || count=$((count / 4))
      free_port port
      sink sink "$port"
      serve ours "$(providers 0 16 "$port")"
      sync
      before=$(disk_written)
      post ours providers=16 callers=64 bytes="$bytes" posts="$count" >/dev/null
      drained ours
      sleep 10
      written=$(($(disk_written) - before))
      sleep 5
      note "row 12: $count messages of $bytes bytes: $written bytes written; at rest then" \
        "$((($(disk_written) - before - written) / 5120)) KiB/s"
      unserve ours KILL
      stop sink KILL
      ratios+=("$(calc "$written / ($count * $bytes)")")
    done
    figure 12 "bytes written for each byte of content, $bytes bytes each" "<= 3" "${ratios[@]}"
  done
  result 12
}

# ---- 13: the data folder after a gibibyte of mail was accepted and delivered, against before. It has two
# minutes to give room back.

row_13() {
  local port count before now end
  count=$(pick 32768 4096)
  free_port port
  sink sink "$port"
  serve ours "$(providers 0 16 "$port")"
  before=$(du -sk "$work/ours" | cut -f1)
  post ours providers=16 callers=64 bytes=32768 posts="$count" >/dev/null
  drained ours
  note "row 13: when the last was delivered: $((($(du -sk "$work/ours" | cut -f1) - before) / 1024)) MiB more"
  end=$((SECONDS + $(pick 120 30)))
  while now=$((($(du -sk "$work/ours" | cut -f1) - before) / 1024)); ((now > 100 && SECONDS < end)); do
    sleep 1
  done
  note "row 13: in the end: journal $(du -sm "$work/ours/journal" | cut -f1) MiB, index $(du -sm "$work/ours/index" | cut -f1) MiB"
  unserve ours KILL
  stop sink KILL
  figure 13 "MiB of disk used more after $((count * 32768 >> 20)) MiB of mail were delivered" "<= 100" "$now"
  result 13
}

# ---- 14: at rest, with one provider.

row_14() {
  local port seconds ticks mib
  seconds=$(pick 60 20)
  free_port port
  sink sink "$port"
  serve ours "$(providers 0 1 "$port")"
  sleep 3
  ticks=$(ticks ours)
  sleep "$seconds"
  ticks=$(($(ticks ours) - ticks))
  mib=$(calc "$(of_process status ours VmRSS) / 1024" 1)
  unserve ours KILL
  stop sink KILL
  figure 14 "MiB of memory at rest" "<= 25" "$mib"
  figure 14 "percent of a core at rest" "<= 0.2" "$(calc "100 * $ticks / $(getconf CLK_TCK) / $seconds")"
  result 14
}

ticks() { sed 's/.*) //' "/proc/${pids[$1]}/stat" | awk '{ print $12 + $13 }'; }

# ---- 15, 16: the 99th percentile of what others see. The others are 16 callers with 500 posts a second in
# all, a part of what the machine can do, so that what is measured is not their own doing. That 1.5 times
# as much is "where it was" is our reading.

# p99_of_others NAME FIRST PROVIDERS
p99_of_others() {
  field p99 "$(post "$1" first="$2" providers="$3" callers=16 rate=500 bytes=4096 seconds="$(pick 6 3)")"
}

# A slow provider: its server takes minutes for an answer, and 5,000 jobs wait for it.
row_15() {
  local round sink_port hold_port without with ratios=()
  free_port sink_port
  free_port hold_port
  for ((round = 0; round < rounds; round++)); do
    sink sink "$sink_port"
    holding_sink hold "$hold_port"
    serve ours "$(providers 0 4 "$sink_port"; providers 4 1 "$hold_port")"
    without=$(p99_of_others ours 0 4)
    post ours first=4 providers=1 callers=64 bytes=4096 posts=5000 >/dev/null
    sleep 1
    with=$(p99_of_others ours 0 4)
    unserve ours KILL
    stop hold KILL
    stop sink KILL
    note "row 15: 99th percentile without a slow provider $without µs, with $with µs"
    ratios+=("$(calc "$with / $without")")
  done
  figure 15 "99th percentile of others' accepts beside a slow provider, to without" "<= 1.5" "${ratios[@]}"
  result 15
}

# A burst: one program posts 10,000 over 64 connections as fast as it is answered. How much of what the
# others see of it is the machine alone, whose cores the two programs share with the server, is told by
# the same burst at another server beside it.
row_16() {
  local round port without beside with ratios=()
  free_port port
  for ((round = 0; round < rounds; round++)); do
    sink sink "$port"
    serve ours "$(providers 0 8 "$port")"
    serve other "$(providers 0 8 "$port")"
    without=$(p99_of_others ours 0 4)
    beside=$(p99_during_burst other)
    drained other
    with=$(p99_during_burst ours)
    unserve ours KILL
    unserve other KILL
    stop sink KILL
    note "row 16: 99th percentile without a burst $without µs, beside one at another server $beside µs, during one $with µs; the burst: $(cat "$work/burst")"
    ratios+=("$(calc "$with / $without")")
  done
  figure 16 "99th percentile of others' accepts during a burst of 10,000, to without" "<= 1.5" "${ratios[@]}"
  result 16
}

# p99_during_burst NAME: of posts at ours while a burst goes to this server
p99_during_burst() {
  local line
  post "$1" first=4 providers=4 callers=64 bytes=4096 posts=10000 >"$work/burst" &
  # As long as the burst takes, and not longer.
  line=$(post ours first=0 providers=4 callers=16 rate=500 bytes=4096 seconds=0.5)
  wait $!
  field p99 "$line"
}
