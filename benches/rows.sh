# The rows, read by benches/run. What is ours and what it is compared with take turns, and each round
# gives a ratio of its own.
#
# quick makes everything smaller: pick USUAL QUICK prints what it is to be.
pick() { if ((quick)); then echo "$2"; else echo "$1"; fi; }

# ---- 1, 2: commits of the store against an append-only file: the same callers, one thread that writes
# all that wait and syncs once. The file is tried as it grows and in allocated room; the faster counts.

commits() {
  local folder=$work/commits
  rm -rf "$folder"
  "$programs/bench-store" "$folder" "$1" "$2" "$3" "$(pick 2 1)"
  rm -rf "$folder"
}

rows_1_and_2() {
  local row bytes callers round goal=">= 0.8" ours append prepared limit ratios
  for row in 1 2; do
    wants $row || continue
    bytes=$((row == 1 ? 4096 : 32768))
    for callers in 1 16 64 256; do
      ratios=()
      for ((round = 0; round < rounds; round++)); do
        ours=$(commits ours $callers $bytes)
        append=$(commits append $callers $bytes)
        prepared=$(commits prepared $callers $bytes)
        limit=$((append < prepared ? prepared : append))
        ratios+=("$(calc "$ours / $limit")")
        note "row $row: $callers callers, $bytes bytes: $ours commits/s; append-only $append, in allocated room $prepared"
      done
      if ((callers < 64)); then
        note "row $row: $callers callers: $(median "${ratios[@]}") of the limit"
      else
        figure $row "commits of $bytes bytes, $callers callers, to an append-only file" "$goal" "${ratios[@]}"
      fi
    done
    result $row
  done
}

# ---- 3, 4, 5: accepts over HTTP alone. Everything is held: our providers' server does not answer, and
# Postfix puts what it takes into its hold queue, so that neither delivers nor moves anything.
#
# "Syncs off" is the same binary on the same disk with libeatmydata, whose fsync and fdatasync do nothing.

rows_3_to_5() {
  local round port hold_port ours line none peer sync cores=(3 4 5) to_none=() to_peer=() p99=()
  free_port hold_port
  holding_sink hold "$hold_port"
  for ((round = 0; round < rounds; round++)); do
    sync=$("$programs/bench-store" "$work/sync" sync)
    serve ours "$(providers 0 30 "$hold_port")"
    post ours providers=30 posts=500 >/dev/null
    line=$(post ours providers=30 callers=64 bytes=4096 seconds="$(pick 5 2)")
    unserve ours KILL
    ours=$(field rate "$line")
    note "rows 3 to 5: 64 callers: $line; a sync takes $sync µs"
    p99+=("$(calc "$(field p99 "$line") / $sync" 1)")
    if wants 3; then
      serve none "$(providers 0 30 "$hold_port")" env LD_PRELOAD="$eatmydata"
      post none providers=30 posts=500 >/dev/null
      line=$(post none providers=30 callers=64 bytes=4096 seconds="$(pick 5 2)")
      unserve none KILL
      none=$(field rate "$line")
      note "row 3: with syncs off: $line"
      to_none+=("$(calc "$ours / $none")")
    fi
    if wants 4; then
      free_port port
      postfix_begins "$port" "$hold_port" hold
      peer=$(postfix_accepts "$port" "$(pick 6000 2000)")
      postfix_ends
      note "row 4: Postfix accepts $peer/s"
      to_peer+=("$(calc "$ours / $peer")")
    fi
  done
  stop hold KILL
  if wants 3; then figure 3 "accepts, 64 callers, 4 KiB, to the same with syncs off" ">= 0.7" "${to_none[@]}"; result 3; fi
  if wants 4; then figure 4 "the same to the accepts of Postfix" ">= 10" "${to_peer[@]}"; result 4; fi
  if wants 5; then figure 5 "99th percentile of accept, 64 callers, to the median sync" "<= 40" "${p99[@]}"; result 5; fi
}

# Over connections that are kept, as ours do it.
postfix_accepts() {
  local begin=$EPOCHREALTIME
  smtp_source "$1" "$2" 64
  calc "$2 / ($EPOCHREALTIME - $begin)" 0
}

# What strace sees of the syncs of a server under libeatmydata: nothing. Else "syncs off" would be a lie.
check_eatmydata() {
  local port
  free_port port
  serve check "$(providers 0 1 "$port")" strace -f -qq -e trace=fsync,fdatasync,sync_file_range,msync \
    -e signal=none -o "$work/check.strace" env LD_PRELOAD="$eatmydata"
  post check posts=20 callers=2 >/dev/null
  pkill -P "${pids[check]}"
  wait "${pids[check]}" 2>/dev/null || true
  unset 'pids[check]'
  if grep -E 'sync[a-z_]*\(' "$work/check.strace"; then
    echo "syncs are not off under libeatmydata" >&2
    return 1
  fi
  rm -rf "$work"/check*
}

# ---- 6, 8: from the first post to the last 250, as fast as posts are answered: ours with 16 providers,
# which is 64 connections to the sink, and Postfix with as many. For row 8 all of these pass a proxy, which
# makes a round trip 5 ms longer.

end_to_end() {
  local row=$1 what=$2 goal=$3 delay=$4 round sink_port mail_port port line seen ours peer count ratios=()
  for ((round = 0; round < rounds; round++)); do
    mail_begins
    count=$(pick 40000 5000)
    serve ours "$(providers 0 16 "$mail_port")"
    line=$(post ours providers=16 callers=64 bytes=4096 posts="$count")
    seen=$(sink_counts sink "$count" 120)
    ours=$(calc "$(field count "$seen") / ($(field last "$seen") - $(field begin "$line"))" 0)
    note "row $row: ours $ours/s; accepted meanwhile: $line"
    unserve ours KILL
    mail_ends

    mail_begins
    count=$(pick 8000 1500)
    free_port port
    postfix_begins "$port" "$mail_port"
    begin=$EPOCHREALTIME
    smtp_source "$port" "$count" 64
    accepted=$(calc "$count / ($EPOCHREALTIME - $begin)" 0)
    seen=$(sink_counts sink "$count" 120)
    peer=$(calc "$(field count "$seen") / ($(field last "$seen") - $begin)" 0)
    note "row $row: Postfix $peer/s; accepted meanwhile: $accepted/s"
    postfix_ends
    mail_ends
    ratios+=("$(calc "$ours / $peer")")
  done
  figure "$row" "$what" "$goal" "${ratios[@]}"
  result "$row"
}

mail_begins() {
  free_port sink_port
  sink sink "$sink_port"
  mail_port=$sink_port
  if ((delay)); then
    free_port mail_port
    start proxy "$programs/bench-proxy" "127.0.0.1:$mail_port" "127.0.0.1:$sink_port" "$delay"
    listens "$mail_port"
  fi
}

mail_ends() {
  stop proxy KILL
  stop sink KILL
}

row_6() { end_to_end 6 "accept to 250, sustained, to Postfix" ">= 6" 0; }
row_8() { end_to_end 8 "accept to 250 with 5 ms of network delay, to Postfix" ">= 2" 5; }

# ---- 7: a full queue goes out. The sink is stopped while the queue is filled, so that its connections are
# open and nothing counts as unreachable, and then goes on. Counted from the first message that it got.

row_7() {
  local round port count ours peer seen ratios=()
  count=$(pick 40000 10000)
  for ((round = 0; round < rounds; round++)); do
    free_port port
    sink sink "$port"
    kill -STOP "${pids[sink]}"
    serve ours "$(providers 0 16 "$port")"
    post ours providers=16 callers=64 bytes=4096 posts="$count" >/dev/null
    kill -CONT "${pids[sink]}"
    seen=$(sink_counts sink "$count" 120)
    ours=$(rate_of "$seen")
    unserve ours KILL
    stop sink KILL

    sink sink "$port"
    smtp_source "$port" "$count" "$connections" &
    seen=$(sink_counts sink "$count" 120)
    wait $!
    peer=$(rate_of "$seen")
    stop sink KILL
    note "row 7: ours $ours/s, smtp-source $peer/s"
    ratios+=("$(calc "$ours / $peer")")
  done
  figure 7 "delivery of a full queue, to smtp-source -d" ">= 0.4" "${ratios[@]}"
  result 7
}

rate_of() {
  calc "($(field count "$1") - $(field count_at_first "$1")) / ($(field last "$1") - $(field first "$1"))" 0
}

# ---- 9: accepts while little or much waits. All is held, as in row 3; each run begins anew with so many.

row_9() {
  local round port few many accepts ratios=()
  free_port port
  holding_sink hold "$port"
  # Few posts, so that what waits stays about as much as it is to be, and therefore more rounds.
  for ((round = 0; round < 3 * rounds; round++)); do
    accepts_behind 10
    few=$accepts
    accepts_behind 10000
    many=$accepts
    note "row 9: behind 10 jobs $few/s, behind 10,000 $many/s"
    ratios+=("$(calc "$many / $few")")
  done
  stop hold KILL
  figure 9 "accepts behind 10,000 waiting jobs, to 10" ">= 0.9" "${ratios[@]}"
  result 9
}

# Into $accepts.
accepts_behind() {
  local line
  serve ours "$(providers 0 30 "$port")"
  post ours providers=20 callers=10 posts="$1" >/dev/null
  # The index has caught up.
  sleep 1
  line=$(post ours first=20 providers=10 callers=64 bytes=4096 posts=5000)
  unserve ours KILL
  accepts=$(field rate "$line")
}
