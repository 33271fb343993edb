# Skerry: choose a slot and start it. Rules: docs/boot-state.md. Model: initd/slot/slottest/bootscript.go, step by step.
# All numbers are hexadecimal.

# 1. The valid copy with the highest number is the state; the other one is written next.
setenv ab_newest none
setenv ab_next {{hex .FirstCopy}}
${devtype} dev ${devnum}
if ${devtype} read {{hex .State0}} {{hex .FirstCopy}} 1 && env import -c {{hex .State0}} 200 {{.Keys}}; then
  setenv ab_newest 0
  setenv ab_highest ${ab_seq}
  setenv ab_next {{hex .SecondCopy}}
fi
if ${devtype} read {{hex .State1}} {{hex .SecondCopy}} 1 && env import -c {{hex .State1}} 200 {{.Keys}}; then
  if test "${ab_newest}" = none || itest "${ab_seq}" > "${ab_highest}"; then
    setenv ab_newest 1
    setenv ab_next {{hex .FirstCopy}}
  fi
fi
if test "${ab_newest}" = 0; then
  env import -c {{hex .State0}} 200 {{.Keys}}
fi
if test "${ab_newest}" = none; then
  echo "Skerry: the boot state is lost, looking for what there is"
  setenv ab_cur a
  setenv ab_dir_a none
  setenv ab_dir_b none
  setenv ab_tries_a 0
  setenv ab_tries_b 0
  setenv ab_done_a 0
  setenv ab_done_b 0
fi

# 2. The slot that was installed last, then the other one: as long as they are good or have tries left. A try is used up
# before it is made; one that cannot be written down is not made.
setenv ab_order "a b"
if test "${ab_cur}" = b; then
  setenv ab_order "b a"
fi
for ab_n in ${ab_order}; do
  if test ${ab_n} = a; then
    setenv ab_dir ${ab_dir_a}
    setenv ab_tries ${ab_tries_a}
    setenv ab_done ${ab_done_a}
  else
    setenv ab_dir ${ab_dir_b}
    setenv ab_tries ${ab_tries_b}
    setenv ab_done ${ab_done_b}
  fi
  setenv ab_run no
  if test "${ab_tries}" = good; then
    setenv ab_run yes
  else
    if itest "${ab_tries}" > 0; then
      setexpr ab_tries ${ab_tries} - 1
      setexpr ab_done ${ab_done} + 1
      setexpr ab_seq ${ab_seq} + 1
      setexpr ab_count ${ab_count} + 1
      if test ${ab_n} = a; then
        setenv ab_tries_a ${ab_tries}
        setenv ab_done_a ${ab_done}
      else
        setenv ab_tries_b ${ab_tries}
        setenv ab_done_b ${ab_done}
      fi
      if env export -c -s 200 {{hex .State0}} {{.Keys}} && ${devtype} write {{hex .State0}} ${ab_next} 1; then
        setenv ab_run yes
        if test ${ab_next} = {{hex .FirstCopy}}; then
          setenv ab_next {{hex .SecondCopy}}
        else
          setenv ab_next {{hex .FirstCopy}}
        fi
      else
        echo "Skerry: cannot count down slot ${ab_n}, so it is not tried"
      fi
    fi
  fi
  if test ${ab_run} = yes; then
    echo "Skerry: starting slot ${ab_n} from ${ab_dir}, tries left: ${ab_tries}"
    setenv slot ${ab_n}
    setenv folder ${ab_dir}
    mw.l {{hex .Script}} 0 1
    if load ${devtype} ${devnum}:1 {{hex .Script}} /${ab_dir}/start.scr; then
      source {{hex .Script}}
    fi
    echo "Skerry: slot ${ab_n} does not start"
  fi
done

# 3. Whatever there is, without counting.
if test "${ab_cur}" = b; then
  setenv ab_rest "${ab_dir_b} ${ab_dir_a} {{.LastResort}}"
else
  setenv ab_rest "${ab_dir_a} ${ab_dir_b} {{.LastResort}}"
fi
for ab_f in ${ab_rest}; do
  setenv slot b
  if test ${ab_f} = a-0 || test ${ab_f} = a-1; then
    setenv slot a
  fi
  setenv folder ${ab_f}
  mw.l {{hex .Script}} 0 1
  if load ${devtype} ${devnum}:1 {{hex .Script}} /${ab_f}/start.scr; then
    echo "Skerry: nothing better is left, starting slot ${slot} from ${ab_f}"
    source {{hex .Script}}
  fi
done
echo "Skerry: this disk has nothing to boot; write the image to it again. Trying again in 10 seconds"
sleep 10
reset
