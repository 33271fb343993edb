# Skerry: start slot ${slot} from ${folder}, as boot.cmd has set them. This script is part of the slot, and is upgraded with it.
setenv dtb none
{{- range .DeviceTrees}}
if test "${fdtfile}" = "{{.Board}}"; then
  setenv dtb {{.File}}
fi
{{- end}}
# The device shall use the disk that it was booted from, whatever other disks there are.
setenv bootpart unknown
part uuid ${devtype} ${devnum}:1 bootpart
setenv bootargs "{{.Arguments}} skerry.slot=${slot} skerry.bootpart=${bootpart}"
{{- if .Unpacked}}
setenv kernel_comp_addr_r {{hex .Unpacked}}
setenv kernel_comp_size {{hex .UnpackedSize}}
{{- end}}
if test "${dtb}" = none; then
  echo "Skerry: this version has no device tree for ${fdtfile}"
else
  load ${devtype} ${devnum}:1 {{hex .Kernel}} /${folder}/kernel && load ${devtype} ${devnum}:1 {{hex .DeviceTree}} /${folder}/${dtb}
{{- if .Overlays}} && fdt addr {{hex .DeviceTree}} && fdt resize 10000{{end}}
{{- range .Overlays}} && load ${devtype} ${devnum}:1 {{hex $.Overlay}} /${folder}/{{.}} && fdt apply {{hex $.Overlay}}{{end}} && load ${devtype} ${devnum}:1 {{hex .Initramfs}} /${folder}/initramfs && {{.Command}} {{hex .Kernel}} {{hex .Initramfs}}:${filesize} {{hex .DeviceTree}}
fi
