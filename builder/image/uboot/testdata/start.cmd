# Skerry: start slot ${slot} from ${folder}, as boot.cmd has set them. This script is part of the slot, and is upgraded with it.
setenv dtb none
if test "${fdtfile}" = "broadcom/bcm2837-rpi-3-a-plus.dtb"; then
  setenv dtb other.dtb
fi
if test "${fdtfile}" = "broadcom/bcm2837-rpi-3-b.dtb"; then
  setenv dtb board.dtb
fi
# The device shall use the disk that it was booted from, whatever other disks there are.
setenv bootpart unknown
part uuid ${devtype} ${devnum}:1 bootpart
setenv bootargs "console=ttyS1,115200 panic=10 skerry.slot=${slot} skerry.bootpart=${bootpart}"
setenv kernel_comp_addr_r 0xa000000
setenv kernel_comp_size 0x2800000
if test "${dtb}" = none; then
  echo "Skerry: this version has no device tree for ${fdtfile}"
else
  load ${devtype} ${devnum}:1 0x200000 /${folder}/kernel && load ${devtype} ${devnum}:1 0x6100000 /${folder}/${dtb} && load ${devtype} ${devnum}:1 0x6200000 /${folder}/initramfs && booti 0x200000 0x6200000:${filesize} 0x6100000
fi
